//! GLUE's files: the official layouts, what is wrong in others, scores, submissions.

use crate::{skip::shared, tokenizers::fixture};
use ndarray::Ix2;
use std::path::Path;
use tenfold::{
    ErrorKind, Tensor,
    text::{Examples, Label, Part, Task, Texts, Tokenizer, TooLong},
    train::Dataset,
};

/// A file of a task in a folder of its own.
fn written(name: &str, content: impl AsRef<[u8]>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), content).unwrap();
    folder
}

fn read(task: Task, part: Part, name: &str, content: &str) -> Examples {
    task.read(written(name, content).path(), part).unwrap()
}

/// The texts and labels, in short.
fn short(examples: &Examples) -> Vec<(String, Option<String>, Option<Label>)> {
    examples.examples.iter().map(|e| (e.first.clone(), e.second.clone(), e.label)).collect()
}

fn of(first: &str, second: Option<&str>, label: Option<Label>) -> Vec<(String, Option<String>, Option<Label>)> {
    vec![(first.into(), second.map(str::to_string), label)]
}

#[test]
fn every_official_layout() {
    let class = |class| Some(Label::Class(class));
    for (task, part, name, content, expected) in [
        (
            Task::Cola,
            Part::Train,
            "train.tsv",
            "gj04\t0\t*\tThey drank the pub.\n",
            of("They drank the pub.", None, class(0)),
        ),
        (Task::Cola, Part::Test, "test.tsv", "index\tsentence\n7\tBill left.\n", of("Bill left.", None, None)),
        (Task::Sst2, Part::Dev, "dev.tsv", "sentence\tlabel\nit 's good \t1\n", of("it 's good", None, class(1))),
        (Task::Sst2, Part::Dev, "dev.tsv", "text\tlabel\r\nit 's bad\t0\r\n", of("it 's bad", None, class(0))),
    ] {
        assert_eq!(short(&read(task, part, name, content)), expected, "{task}");
    }
    let mrpc = "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t10\t20\tHe said \"no\tShe \"did\n";
    assert_eq!(
        short(&read(Task::Mrpc, Part::Train, "train.tsv", mrpc)),
        of("He said \"no", Some("She \"did"), class(1))
    );
    let stsb = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n\
                0\tmain\tMSR\t2012\t1\tnone\tnone\tA plane.\tAn air plane.\t4.750\n";
    let score = Some(Label::Score(4.75));
    assert_eq!(short(&read(Task::Stsb, Part::Dev, "dev.tsv", stsb)), of("A plane.", Some("An air plane."), score));
    let mnli = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\t\
                sentence1\tsentence2\tlabel1\tgold_label\n0\t1\t1n\tfiction\t(\t(\t(\t(\tOne.\tTwo.\tneutral\tcontradiction\n";
    for (part, name) in
        [(Part::Train, "train.tsv"), (Part::Dev, "dev_matched.tsv"), (Part::DevMismatched, "dev_mismatched.tsv")]
    {
        assert_eq!(short(&read(Task::Mnli, part, name, mnli)), of("One.", Some("Two."), class(2)));
    }
    let qnli = "index\tquestion\tsentence\tlabel\n0\tWho?\tHe.\tnot_entailment\n";
    assert_eq!(short(&read(Task::Qnli, Part::Dev, "dev.tsv", qnli)), of("Who?", Some("He."), class(1)));
    let rte = "index\tsentence1\tsentence2\n5\tA.\tB.\n6\tC.\tD.\n";
    let test = read(Task::Rte, Part::Test, "test.tsv", rte);
    assert_eq!(test.examples[1].index.as_deref(), Some("6"));
    assert_eq!((test.examples[1].line, test.examples[1].label), (3, None));
    // QQP's own file has a line that is cut in two.
    let qqp = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t1\t2\tA?\tB?\t1\n2\t3\t4\tcut\nin two?\tC?\t0\n3\t5\t6\tD?\tE?\t0\n";
    let qqp = read(Task::Qqp, Part::Train, "train.tsv", qqp);
    assert_eq!((qqp.examples.len(), &qqp.skipped[..]), (2, &[3, 4][..]));
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_line() {
    let header = "index\tsentence1\tsentence2\tlabel\n";
    let good = "0\tA.\tB.\tentailment\n";
    let rte = |lines: &str| format!("{header}{good}{lines}").into_bytes();
    for (content, kind, part) in [
        (Vec::new(), ErrorKind::Format, "the file is empty"),
        (b"\n\n".to_vec(), ErrorKind::Format, "the file is empty"),
        (header.as_bytes().to_vec(), ErrorKind::Format, "there are no examples in it"),
        (
            b"index\tsentence1\tlabel\n".to_vec(),
            ErrorKind::Format,
            "line 1: there is no column \"sentence2\"; there are \"index\", \"sentence1\", \"label\"",
        ),
        (rte("1\tC.\tD.\n"), ErrorKind::Format, "line 3: 3 columns; needs 4"),
        (rte("1\tC.\tD.\tentailment\tmore\n"), ErrorKind::Format, "line 3: 5 columns; needs 4"),
        (rte("\n1\tC.\tD.\tentailment\n"), ErrorKind::Format, "line 3: 1 columns; needs 4"),
        (rte("1\tC.\tD.\t\n"), ErrorKind::Format, "line 3: there is no label"),
        (rte("1\t \tD.\tentailment\n"), ErrorKind::Format, "line 3: column 2 has no text"),
        (
            rte("1\tC.\tD.\tmaybe\n"),
            ErrorKind::Value,
            "line 3: the label \"maybe\" is none of \"entailment\", \"not_entailment\"",
        ),
        ([rte("1\tC.\t"), b"\xff.\tentailment\n".to_vec()].concat(), ErrorKind::Format, "line 3: byte 6 is no UTF-8"),
    ] {
        let folder = written("dev.tsv", content);
        let error = Task::Rte.read(folder.path(), Part::Dev).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(part) && error.message().contains("dev.tsv"), "{error}");
    }
    let score = |score: &str| {
        let header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore";
        let folder = written("dev.tsv", format!("{header}\n0\tm\tf\t2012\t1\tn\tn\tA.\tB.\t{score}\n"));
        Task::Stsb.read(folder.path(), Part::Dev).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(score("5.0"), Ok(()));
    for wrong in ["5.1", "-1", "nan", "x"] {
        assert!(score(wrong).unwrap_err().contains("is no number from 0 to 5"));
    }
    let classes = written("dev.tsv", "sentence\tlabel\ngood\t2\n");
    let error = Task::Sst2.read(classes.path(), Part::Dev).unwrap_err();
    assert!(error.message().ends_with("line 2: the label \"2\" is none of \"0\", \"1\""), "{error}");
    // Broken lines of QQP are left out, but not a file of them.
    let lines: String = (0..20).map(|i| format!("{i}\tcut\n")).collect();
    let header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n";
    let folder = written("train.tsv", format!("{header}1\t1\t2\tA?\tB?\t1\n{lines}"));
    let error = Task::Qqp.read(folder.path(), Part::Train).unwrap_err();
    assert!(error.message().contains("line 3 and 19 more are not 6 columns"), "{error}");
    let error = Task::Mrpc.read(folder.path().join("nowhere"), Part::Dev).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().contains("neither") && error.message().contains("MRPC"), "{error}");
    assert!(
        Task::named("wnli").unwrap_err().message().ends_with("there are cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte")
    );
}

#[test]
fn every_task_is_found_by_its_names() {
    for task in Task::all() {
        assert_eq!((Task::named(task.name()).unwrap(), Task::named(task.title()).unwrap()), (task, task));
        assert_eq!(task.to_string(), task.title());
    }
}

fn texts(task: Task, part: Part, name: &str, content: &str) -> Texts {
    let tokenizer = Tokenizer::open(fixture("wordpiece")).unwrap();
    Texts::new(&read(task, part, name, content), &tokenizer, 16, TooLong::Truncate).unwrap()
}

fn logits(rows: &[&[f32]]) -> Tensor<f32, Ix2> {
    Tensor::from_vec([rows.len(), rows[0].len()], rows.concat()).unwrap()
}

#[test]
fn scores_and_submissions() {
    let mrpc =
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\ta\tb\n0\t1\t2\ta\tb\n1\t1\t2\ta\tb\n0\t1\t2\ta\tb\n";
    let data = texts(Task::Mrpc, Part::Dev, "dev.tsv", mrpc);
    let given = logits(&[&[0.0, 1.0], &[0.0, 1.0], &[1.0, 0.0], &[1.0, 0.0]]);
    let scores = Task::Mrpc.scores(&given, &data).unwrap();
    assert_eq!([scores.get("accuracy"), scores.get("f1"), scores.get("score")], [Some(0.5); 3]);
    assert_eq!(Task::Mrpc.scores(&given.narrow(0, 0..3).unwrap(), &data).unwrap_err().kind(), ErrorKind::Shape);

    let cola = "a\t1\t\tone\nb\t0\t*\ttwo\nc\t1\t\tthree\n";
    let data = texts(Task::Cola, Part::Dev, "dev.tsv", cola);
    let right = logits(&[&[0.0, 1.0], &[1.0, 0.0], &[0.0, 1.0]]);
    assert_eq!(Task::Cola.scores(&right, &data).unwrap().get("matthews"), Some(1.0));

    let header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2";
    let row = |i: usize| format!("{i}\tm\tf\t2012\t1\tn\tn\tA.\tB.");
    let labelled = format!("{header}\tscore\n{}\t1.0\n{}\t2.0\n{}\t4.0\n", row(0), row(1), row(2));
    let data = texts(Task::Stsb, Part::Dev, "dev.tsv", &labelled);
    let scores = Task::Stsb.scores(&logits(&[&[0.5], &[1.0], &[2.0]]), &data).unwrap();
    assert!((scores.get("pearson").unwrap() - 1.0).abs() < 1e-12 && scores.get("spearman") == Some(1.0));

    let out = tempfile::tempdir().unwrap();
    let submitted = |task: Task, part, name, content: &str, logits| {
        let path = task.submit(&logits, &read(task, part, name, content), part, out.path()).unwrap();
        (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap())
    };
    let rte = "index\tsentence1\tsentence2\n5\tA.\tB.\n6\tC.\tD.\n";
    assert_eq!(
        submitted(Task::Rte, Part::Test, "test.tsv", rte, logits(&[&[1.0, 2.0], &[2.0, 2.0]])),
        ("RTE.tsv".into(), "index\tprediction\n5\tnot_entailment\n6\tentailment\n".into())
    );
    let stsb = format!("{header}\n{}\n{}\n", row(0), row(1));
    assert_eq!(
        submitted(Task::Stsb, Part::Test, "test.tsv", &stsb, logits(&[&[5.5], &[1.25]])),
        ("STS-B.tsv".into(), "index\tprediction\n0\t5.000\n1\t1.250\n".into())
    );
    for (task, content, given) in [
        (Task::Rte, rte, logits(&[&[1.0, 2.0], &[f32::NAN, 2.0]])),
        (Task::Stsb, stsb.as_str(), logits(&[&[f32::NAN], &[1.25]])),
    ] {
        let (path, examples) = (out.path().join("nan"), read(task, Part::Test, "test.tsv", content));
        let error = task.submit(&given, &examples, Part::Test, &path).unwrap_err();
        assert!(error.kind() == ErrorKind::Value && error.message().contains("NaN"), "{error}");
        assert!(!path.exists());
    }
    let test = texts(Task::Rte, Part::Test, "test.tsv", rte);
    let error = Task::Rte.scores(&logits(&[&[1.0, 2.0], &[2.0, 2.0]]), &test).unwrap_err();
    assert!(error.message().contains("no labels"), "{error}");
}

#[test]
fn texts_that_are_too_long_are_cut_or_refused_with_their_line() {
    let tokenizer = Tokenizer::open(fixture("wordpiece")).unwrap();
    let examples = read(Task::Sst2, Part::Dev, "dev.tsv", "sentence\tlabel\na\t1\na a a a a a\t0\n");
    let cut = Texts::new(&examples, &tokenizer, 6, TooLong::Truncate).unwrap();
    assert_eq!((cut.truncated(), cut.length(0), cut.length(1)), (1, 3, 6));
    let error = Texts::new(&examples, &tokenizer, 6, TooLong::Refuse).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert!(error.message().ends_with("dev.tsv: line 3: more than 6 tokens"), "{error}");
    let error = Texts::new(&examples, &tokenizer, 2, TooLong::Truncate).unwrap_err();
    assert!(error.message().contains("dev.tsv: line 2: at most 2 tokens"), "{error}");
    // Padded to the longest of the batch, no further.
    let batch = cut.batch(&[0, 1]).unwrap();
    assert_eq!((batch.tokens.batch(), batch.tokens.len()), (2, 6));
    assert_eq!(cut.batch(&[0]).unwrap().tokens.len(), 3);
    assert!(cut.batch(&[2]).is_err());
}

/// The official sizes.
#[test]
fn real_files_are_read_whole() {
    for (task, part, count, ones) in [
        (Task::Cola, Part::Train, 8551, 6023),
        (Task::Cola, Part::Dev, 1043, 721),
        (Task::Sst2, Part::Dev, 872, 444),
        (Task::Sst2, Part::Train, 67349, 37569),
        (Task::Mrpc, Part::Train, 3668, 2474),
        (Task::Mrpc, Part::Dev, 408, 279),
        (Task::Rte, Part::Train, 2490, 1241),
        (Task::Rte, Part::Dev, 277, 131),
    ] {
        let name = format!("glue/{}/{}", task.title(), if part == Part::Train { "train.tsv" } else { "dev.tsv" });
        let Some(file) = shared(&name) else { return };
        let folder = file.parent().and_then(Path::parent).unwrap();
        let examples = task.read(folder, part).unwrap();
        let found = examples.examples.iter().filter(|example| example.label == Some(Label::Class(1))).count();
        assert_eq!((examples.examples.len(), found), (count, ones), "{task} {part:?}");
    }
}
