//! What an optimiser remembers, among the tensors of a file and back, exactly.
//!
//! With a prefix of the caller's, `optimizer.` here, for n parameters:
//!
//! | name | what |
//! |---|---|
//! | metadata `optimizer.rule` | the rule, as JSON |
//! | metadata `optimizer.parameters` | the names of the parameters in the model's order, as JSON |
//! | tensor `optimizer.settings` | `[n, 2]` doubles: rate and decay of each |
//! | tensor `optimizer.steps` | `[n]` integers: how many steps each has moved |
//! | tensors `optimizer.state.PARAMETER.MOMENT` | in the parameter's shape and type; the moments have PyTorch's names |

use super::{Optimizer, Rule, State};
use crate::{
    error::{Error, ErrorKind, Result},
    scalar::Scalar,
    tensor::{Tensor, TensorFile, first_few, listed},
};
use ndarray::{Ix1, Ix2, IxDyn};
use std::collections::{HashMap, HashSet};

const LOAD: &str = "Optimizer::load_from";

impl<T: Scalar> Optimizer<T> {
    /// Puts rule, settings, step counts and moments into a file, under names that begin with `prefix`. Tensors are shared, not
    /// copied: they are what they are now, whatever steps follow before the file is written.
    ///
    /// ```
    /// use tenfold::{Tensor, TensorFile, nn::Linear, train::{AdamW, Groups, Optimizer}};
    ///
    /// let model = Linear::<f32>::zeros(3, 2)?;
    /// let make = || Optimizer::new(AdamW::new(1e-3), &Groups::new(), &model);
    /// let mut file = TensorFile::new();
    /// make()?.save_into(&mut file, "optimizer.")?;
    /// assert_eq!(file.shape("optimizer.state.weight.exp_avg")?, [2, 3]);
    /// make()?.load_from(&file, "optimizer.")?;
    ///
    /// let error = Optimizer::new(AdamW::new(1e-2), &Groups::new(), &model)?.load_from(&file, "optimizer.").unwrap_err();
    /// assert!(error.message().contains(r#"the file's is {"AdamW":{"rate":0.001,"#), "{error}");
    /// # Ok::<(), tenfold::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Value`] where a name is taken.
    pub fn save_into(&self, file: &mut TensorFile, prefix: &str) -> Result<()> {
        let settings = self.states.iter().flat_map(|state| [state.setting.rate, state.setting.decay]).collect();
        let steps = self.states.iter().map(|state| state.count as i64).collect();
        file.set_metadata(format!("{prefix}rule"), self.rule.to_string());
        file.set_metadata(format!("{prefix}parameters"), serde_json::json!(self.names()).to_string());
        file.insert(&format!("{prefix}settings"), &Tensor::from_vec([self.states.len(), 2], settings)?)?;
        file.insert(&format!("{prefix}steps"), &Tensor::from_vec([self.states.len()], steps)?)?;
        self.states.iter().try_for_each(|state| {
            let names = state.moment_names(prefix, &self.rule);
            state.moments.iter().zip(names).try_for_each(|(moment, name)| file.insert(&name, moment))
        })
    }

    /// Takes step counts and moments from a file, where [`save_into`](Optimizer::save_into) put them; steps go on as if there had been no
    /// file, bit for bit.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] where the file has no optimiser under this prefix, or one that is malformed; [`ErrorKind::Value`] where its rule is
    /// another, and listing parameters that are missing or unexpected, whose rate or decay is another, or tensors that are missing or
    /// unexpected; [`ErrorKind::Shape`] listing shapes that differ, [`ErrorKind::Unsupported`] types; those of reading a file. The
    /// optimiser stays as it was then.
    pub fn load_from(&mut self, file: &TensorFile, prefix: &str) -> Result<()> {
        self.check_rule(file, prefix)?;
        let order = self.file_order(file, prefix)?;
        self.check_settings(file, prefix, &order)?;
        self.check_tensors(file, prefix)?;
        let steps: Tensor<i64, Ix1> = get(file, prefix, "steps")?;
        let steps = steps.to_vec()?.into_iter().map(u64::try_from).collect::<Result<Vec<u64>, _>>();
        let steps = steps.map_err(|_| malformed(format!("\"{prefix}steps\" has a count below 0")))?;
        if steps.len() != order.len() {
            return Err(malformed(format!(
                "\"{prefix}steps\" has {} counts for {} parameters",
                steps.len(),
                order.len()
            )));
        }
        let read = |state: &State<T>| -> Result<State<T>> {
            let names = state.moment_names(prefix, &self.rule);
            let moment =
                |(name, old): (String, &Tensor<T, IxDyn>)| file.get::<T, IxDyn>(&name)?.to_device(old.device());
            let moments = names.into_iter().zip(&state.moments).map(moment).collect::<Result<_>>()?;
            Ok(State { setting: state.setting.clone(), count: steps[order[state.setting.name.as_str()]], moments })
        };
        self.states = self.states.iter().map(read).collect::<Result<_>>()?;
        Ok(())
    }

    fn names(&self) -> Vec<&str> {
        self.states.iter().map(|state| state.setting.name.as_str()).collect()
    }

    /// An error unless the file's rule is this one.
    fn check_rule(&self, file: &TensorFile, prefix: &str) -> Result<()> {
        // Compared as text: shortest decimals are exact, and need no parser that rounds right.
        let (ours, theirs) = (self.rule.to_string(), word(file, prefix, "rule")?);
        if ours == theirs {
            return Ok(());
        }
        Err(refused(format!("the rule of this optimiser is {ours}; the file's is {theirs}")))
    }

    /// Where in the file's order each parameter stands; an error that lists the names unless they are this optimiser's.
    fn file_order<'s>(&'s self, file: &TensorFile, prefix: &str) -> Result<HashMap<&'s str, usize>> {
        let names: Vec<String> = serde_json::from_str(word(file, prefix, "parameters")?)
            .map_err(|e| malformed(format!("\"{prefix}parameters\" is no list of names: {e}")).with_source(e))?;
        let place: HashMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let ours: HashSet<&str> = self.names().into_iter().collect();
        let missing: Vec<&str> = self.names().into_iter().filter(|name| !place.contains_key(name)).collect();
        let unexpected: Vec<&str> = names.iter().map(String::as_str).filter(|name| !ours.contains(name)).collect();
        let parts: Vec<String> = [("missing in the file", missing), ("unexpected in it", unexpected)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what}: {}", listed(names.into_iter())))
            .collect();
        match parts.as_slice() {
            [] if place.len() < names.len() => Err(malformed(format!("\"{prefix}parameters\" has a name twice"))),
            [] => Ok(self.names().into_iter().map(|name| (name, place[name])).collect()),
            _ => Err(refused(format!("other parameters; {}", parts.join("; ")))),
        }
    }

    /// An error that lists the parameters of other rates or decays.
    fn check_settings(&self, file: &TensorFile, prefix: &str, order: &HashMap<&str, usize>) -> Result<()> {
        let settings: Tensor<f64, Ix2> = get(file, prefix, "settings")?;
        if settings.shape() != [order.len(), 2] {
            let message =
                format!("\"{prefix}settings\" has shape {:?} for {} parameters", settings.shape(), order.len());
            return Err(malformed(message));
        }
        let numbers = settings.to_vec()?;
        let other = self.states.iter().filter_map(|State { setting, .. }| {
            let at = 2 * order[setting.name.as_str()];
            let (rate, decay) = (numbers[at], numbers[at + 1]);
            let alike = rate == setting.rate && decay == setting.decay;
            let (name, here) = (&setting.name, (setting.rate, setting.decay));
            (!alike).then(|| {
                format!("{name:?} has rate {} and decay {} here, {rate} and {decay} in the file", here.0, here.1)
            })
        });
        check_none(ErrorKind::Value, "other groups: ", other.collect())
    }

    /// Errors that list tensors that are missing or unexpected, shapes, and types that differ.
    fn check_tensors(&self, file: &TensorFile, prefix: &str) -> Result<()> {
        let start = format!("{prefix}state.");
        let moments = self.states.iter().flat_map(|state| {
            state.moment_names(prefix, &self.rule).into_iter().map(|name| (name, state.setting.shape.as_slice()))
        });
        let expected: HashMap<String, &[usize]> = moments.collect();
        let missing = expected.keys().filter(|name| !file.contains(name)).map(|name| format!("{name:?} is missing"));
        let of_state = file.names().filter(|name| name.starts_with(&start));
        let unexpected =
            of_state.filter(|name| !expected.contains_key(*name)).map(|name| format!("{name:?} is unexpected"));
        let mut names: Vec<String> = missing.chain(unexpected).collect();
        names.sort_unstable();
        check_none(ErrorKind::Value, "", names)?;
        let (mut shapes, mut types) = (Vec::new(), Vec::new());
        for (name, shape) in &expected {
            let (held, dtype) = (file.shape(name)?, file.dtype(name)?);
            if held != *shape {
                shapes.push(format!("{name:?} has shape {held:?} in the file and {shape:?} here"));
            }
            if dtype != T::DTYPE {
                types.push(format!("{name:?} is {dtype} in the file and {} here", T::DTYPE));
            }
        }
        shapes.sort_unstable();
        types.sort_unstable();
        check_none(ErrorKind::Shape, "", shapes)?;
        check_none(ErrorKind::Unsupported, "", types)
    }
}

impl<T: Scalar> State<T> {
    fn moment_names(&self, prefix: &str, rule: &Rule) -> Vec<String> {
        rule.moments().iter().map(|moment| format!("{prefix}state.{}.{moment}", self.setting.name)).collect()
    }
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Value, LOAD, message)
}

fn malformed(message: String) -> Error {
    Error::format(LOAD, message)
}

/// A word of the metadata.
fn word<'f>(file: &'f TensorFile, prefix: &str, key: &str) -> Result<&'f str> {
    let key = format!("{prefix}{key}");
    let word = file.metadata().get(&key).map(String::as_str);
    word.ok_or_else(|| malformed(format!("the file has no metadata {key:?}, so no optimiser under {prefix:?}")))
}

/// A tensor that every optimiser has.
fn get<T: crate::Element, D: ndarray::Dimension>(file: &TensorFile, prefix: &str, name: &str) -> Result<Tensor<T, D>> {
    file.get(&format!("{prefix}{name}")).map_err(|e| malformed(e.message().to_string()).with_source(e))
}

/// An error that lists what is wrong, where something is.
fn check_none(kind: ErrorKind, start: &str, offences: Vec<String>) -> Result<()> {
    if offences.is_empty() {
        return Ok(());
    }
    Err(Error::new(kind, LOAD, format!("{start}{}", first_few(&offences))))
}
