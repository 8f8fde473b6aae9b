//! The names of classes in Hugging Face's `config.json`.

use crate::error::{Error, ErrorKind, Result};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What transformers calls the classes of a model that nobody has named.
fn unnamed(i: usize) -> String {
    format!("LABEL_{i}")
}

/// How many classes a configuration says, and what they are called: as many as `id2label` has, else `num_labels`, else transformers' two.
/// Names are those of classes 0, 1, ..; none where a number is left out, two are the same, or nobody has named them.
pub(super) fn read(num_labels: Option<usize>, id2label: Option<&BTreeMap<String, Value>>) -> (usize, Vec<String>) {
    let Some(id2label) = id2label else { return (num_labels.unwrap_or(2), Vec::new()) };
    let name = |i: usize| id2label.get(&i.to_string())?.as_str().map(str::to_string);
    let names: Option<Vec<String>> = (0..id2label.len()).map(name).collect();
    let named = names.filter(|names| check(names.len(), names).is_ok());
    let own = named.filter(|names| names.iter().enumerate().any(|(i, name)| *name != unnamed(i)));
    (id2label.len(), own.unwrap_or_default())
}

/// `id2label` and `label2id`. Names of another number of classes are none.
pub(super) fn write(num_labels: usize, names: &[String]) -> [(&'static str, Value); 2] {
    let name = |i: usize| if names.len() == num_labels { names[i].clone() } else { unnamed(i) };
    let id2label: Map<String, Value> = (0..num_labels).map(|i| (i.to_string(), name(i).into())).collect();
    let label2id: Map<String, Value> = (0..num_labels).map(|i| (name(i), i.into())).collect();
    [("id2label", id2label.into()), ("label2id", label2id.into())]
}

/// The names, where they are those of so many classes.
pub(super) fn of(num_labels: usize, names: Vec<String>) -> Vec<String> {
    if names.len() == num_labels { names } else { Vec::new() }
}

/// Other names for so many classes.
pub(super) fn rename(own: &mut Vec<String>, num_labels: usize, names: &[String]) -> Result<()> {
    check(num_labels, names)?;
    *own = names.to_vec();
    Ok(())
}

/// An error unless these can be the names of so many classes.
pub(super) fn check(num_labels: usize, names: &[String]) -> Result<()> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Value, "name_labels", message));
    if names.len() != num_labels {
        return wrong(format!("{} names for {num_labels} classes; needs one for each", names.len()));
    }
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| name.is_empty() || !seen.insert(*name)) {
        Some(name) if name.is_empty() => wrong("a class has the empty string as its name".into()),
        Some(name) => wrong(format!("two classes are called {name:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(id2label: Value) -> (usize, Vec<String>) {
        read(Some(7), Some(&serde_json::from_value(id2label).unwrap()))
    }

    #[test]
    fn names_come_in_the_order_of_their_numbers() {
        let many: BTreeMap<String, Value> = (0..12).map(|i| (i.to_string(), format!("class {i}").into())).collect();
        let (count, names) = read(None, Some(&many));
        assert_eq!((count, &names[2], &names[11]), (12, &"class 2".to_string(), &"class 11".to_string()));
        let [id2label, label2id] = write(12, &names);
        assert_eq!(of(id2label.1), (12, names));
        assert_eq!((label2id.0, &label2id.1["class 10"]), ("label2id", &json!(10)));
    }

    #[test]
    fn what_names_nothing() {
        assert_eq!(read(None, None), (2, vec![]));
        assert_eq!(read(Some(5), None), (5, vec![]));
        assert_eq!(of(write(3, &[])[0].1.clone()), (3, vec![]));
        assert_eq!(of(json!({"0": "a", "2": "b"})), (2, vec![]));
        assert_eq!(of(json!({"0": "a", "1": 1})), (2, vec![]));
        assert_eq!(of(json!({"0": "a", "1": "a"})), (2, vec![]));
        assert_eq!(write(2, &["a".to_string()])[0].1, json!({"0": "LABEL_0", "1": "LABEL_1"}));
    }

    #[test]
    fn a_class_has_one_name_of_its_own() {
        let names = |all: &[&str]| all.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let message = |n: usize, all: &[&str]| check(n, &names(all)).unwrap_err().message().to_string();
        assert_eq!(message(3, &["a", "b"]), "2 names for 3 classes; needs one for each");
        assert_eq!(message(3, &["a", "b", "a"]), "two classes are called \"a\"");
        assert!(message(2, &["a", ""]).contains("empty"));
        assert!(check(2, &names(&["a", "b"])).is_ok());
    }
}
