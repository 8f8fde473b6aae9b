//! Texts for training: tokenizers from the files of published models, GLUE's tasks, and batches padded to their longest. Feature `text`.
//!
//! A [`Tokenizer`] makes numbers of a text, or of a pair of texts, as the model at hand was trained with them. [`Task`] reads the files of a
//! GLUE task and knows its labels, its metrics and the form of its submissions. [`Texts`] are tokenised examples, a
//! [`Dataset`](crate::train::Dataset) whose batches are as long as their longest text:
//!
//! ```
//! use rand::SeedableRng;
//! use rand_chacha::ChaCha8Rng;
//! use tenfold::{
//!     models::{Bert, BertConfig, TextClassifier},
//!     text::{Part, Task, Texts, Tokenizer, TooLong},
//!     train::{AdamW, Dataset, Trainer},
//! };
//!
//! // A folder as published models have it, and one as GLUE has it.
//! # let folder = std::env::temp_dir().join(format!("tenfold-text-mod-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder).unwrap();
//! # std::fs::write(folder.join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ngood\nbad\nfilm\nvery\n").unwrap();
//! # let lines: String = ["good", "bad", "very good", "very bad", "a good film", "a bad film", "a very good film", "a very bad film"]
//! #     .iter().map(|text| format!("{text}\t{}\n", u8::from(text.contains("good")))).collect();
//! # std::fs::write(folder.join("train.tsv"), format!("sentence\tlabel\n{lines}")).unwrap();
//! let tokenizer = Tokenizer::open(&folder)?;
//! let task = Task::named("sst2")?;
//! let train = Texts::new(&task.read(&folder, Part::Train)?, &tokenizer, 16, TooLong::Truncate)?;
//!
//! let config = BertConfig {
//!     vocab_size: tokenizer.size(), hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16, num_labels: 2,
//!     ..BertConfig::default()
//! };
//! let mut model = Bert::<f32>::new(config, &mut ChaCha8Rng::seed_from_u64(1))?;
//! tokenizer.check(&model)?; // that it is this model's
//! let trainer = Trainer::new(AdamW::new(0.02)).epochs(30).batch_size(4).seed(1);
//! trainer.fit(&mut model, &train, |model, batch, mode| batch.loss(&model.forward(&batch.tokens, mode)?, 0.0))?;
//!
//! let logits = train.logits(&model, 4)?;
//! assert_eq!(task.scores(&logits, &train)?.get("accuracy"), Some(1.0));
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok::<(), tenfold::Error>(())
//! ```
//!
//! What to know about it:
//!
//! - **Tokenizers** come from `tokenizer.json`, from SentencePiece's `spm.model` (DeBERTa-v3; unigram models, with the normaliser that the
//!   file has), or from `vocab.txt` (BERT's WordPiece). No C is compiled.
//! - **Files are read strictly.** What is wrong in one is an error with the file and the line: columns or labels that are missing, bytes
//!   that are no UTF-8, a file without examples.
//! - **Padding is dynamic**: a batch is as long as its longest text. [`Trainer::buckets`](crate::train::Trainer::buckets) puts texts of like
//!   length together.
//!
//! | file | what |
//! |---|---|
//! | `tokenizer.rs` | [`Tokenizer`], from whichever file a folder has |
//! | `wordpiece.rs`, `sentencepiece/` | from `vocab.txt`; from `spm.model` |
//! | `glue/` | [`Task`]: columns, labels, scores, submissions; reading TSV files |
//! | `texts.rs` | [`Texts`], the data set; [`TextBatch`] |

mod glue;
mod sentencepiece;
mod texts;
mod tokenizer;
mod wordpiece;

pub use glue::{Example, Examples, Label, Part, Task};
pub use texts::{Labels, TextBatch, Texts, TooLong};
pub use tokenizer::{Encoded, Tokenizer};
