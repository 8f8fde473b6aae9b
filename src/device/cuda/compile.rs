//! Kernels from source to a module: compiled by NVRTC for the GPU's architecture, once, then read from disk.
#![allow(unsafe_code)]

use super::cache;
use crate::error::{Error, ErrorKind, Result};
use cudarc::nvrtc::{result as nvrtc, sys};
use std::ffi::{CStr, CString, c_int};

/// The text of a file, with its name for whoever says which line is meant.
macro_rules! kernels {
    ($file:literal) => {
        concat!("#line 1 \"", $file, "\"\n", include_str!(concat!("kernels/", $file)))
    };
}

/// A file of kernels, which is one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    Elementwise,
    Cast,
    Reduce,
    Contract,
    Activation,
    Softmax,
    Normalise,
    Channels,
    Losses,
    Dropout,
    Optimizer,
    Gather,
    Positions,
    Place,
    Conv,
    Depthwise,
    Attention,
    Thin,
    Linalg,
    LeastSquares,
    /// A kernel that fails.
    #[cfg(test)]
    Faulty,
}

impl Source {
    #[cfg(test)]
    pub(crate) const ALL: &[Source] = &[
        Source::Elementwise,
        Source::Cast,
        Source::Reduce,
        Source::Contract,
        Source::Activation,
        Source::Softmax,
        Source::Normalise,
        Source::Channels,
        Source::Losses,
        Source::Dropout,
        Source::Optimizer,
        Source::Gather,
        Source::Positions,
        Source::Place,
        Source::Conv,
        Source::Depthwise,
        Source::Attention,
        Source::Thin,
        Source::Linalg,
        Source::LeastSquares,
        Source::Faulty,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Source::Elementwise => "elementwise",
            Source::Cast => "cast",
            Source::Reduce => "reduce",
            Source::Contract => "contract",
            Source::Activation => "activation",
            Source::Softmax => "softmax",
            Source::Normalise => "normalise",
            Source::Channels => "channels",
            Source::Losses => "losses",
            Source::Dropout => "dropout",
            Source::Optimizer => "optimizer",
            Source::Gather => "gather",
            Source::Positions => "positions",
            Source::Place => "place",
            Source::Conv => "conv",
            Source::Depthwise => "depthwise",
            Source::Attention => "attention",
            Source::Thin => "thin",
            Source::Linalg => "linalg",
            Source::LeastSquares => "least_squares",
            #[cfg(test)]
            Source::Faulty => "faulty",
        }
    }

    /// The whole text that is compiled.
    pub(crate) fn text(self) -> String {
        let own = match self {
            Source::Elementwise => kernels!("elementwise.cu"),
            Source::Cast => kernels!("cast.cu"),
            Source::Reduce => kernels!("reduce.cu"),
            Source::Contract => kernels!("contract.cu"),
            Source::Activation => kernels!("activation.cu"),
            Source::Softmax => kernels!("softmax.cu"),
            Source::Normalise => kernels!("normalise.cu"),
            Source::Channels => kernels!("channels.cu"),
            Source::Losses => kernels!("losses.cu"),
            Source::Dropout => kernels!("dropout.cu"),
            Source::Optimizer => kernels!("optimizer.cu"),
            Source::Gather => kernels!("gather.cu"),
            Source::Positions => kernels!("positions.cu"),
            Source::Place => kernels!("place.cu"),
            Source::Conv => kernels!("conv.cu"),
            Source::Depthwise => kernels!("depthwise.cu"),
            Source::Attention => kernels!("attention.cu"),
            Source::Thin => kernels!("thin.cu"),
            Source::Linalg => kernels!("linalg.cu"),
            Source::LeastSquares => kernels!("least_squares.cu"),
            #[cfg(test)]
            Source::Faulty => super::faults::KERNEL,
        };
        [kernels!("common.cuh"), self.shared(), own].concat()
    }

    /// What several files have in common beside the loops.
    fn shared(self) -> &'static str {
        match self {
            Source::Conv | Source::Depthwise => kernels!("windows.cuh"),
            Source::Attention | Source::Dropout => {
                concat!(kernels!("rows.cuh"), kernels!("philox.cuh"))
            }
            Source::Elementwise | Source::Cast | Source::Reduce | Source::Contract => "",
            _ => kernels!("rows.cuh"),
        }
    }
}

/// What NVRTC is asked to compile for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Machine code for exactly this architecture (90 for compute capability 9.0).
    Real(u32),
    /// PTX of an architecture that the driver compiles on for a newer GPU.
    Virtual(u32),
}

impl Target {
    fn flag(self) -> String {
        match self {
            Target::Real(n) => format!("--gpu-architecture=sm_{n}"),
            Target::Virtual(n) => format!("--gpu-architecture=compute_{n}"),
        }
    }

    /// For a GPU of this architecture, by what NVRTC supports: its own, else PTX of the newest one before it.
    pub(crate) fn choose(gpu: u32, supported: &[u32]) -> Option<Self> {
        if supported.contains(&gpu) {
            return Some(Target::Real(gpu));
        }
        supported.iter().copied().filter(|&n| n < gpu).max().map(Target::Virtual)
    }
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Device, "nvrtc", message)
}

/// The architectures that this NVRTC compiles for; the library is present.
pub(crate) fn supported() -> Result<Vec<u32>> {
    let mut count: c_int = 0;
    // SAFETY: the call writes one integer.
    unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) }
        .result()
        .map_err(|e| failed(format!("asking for architectures: {e}")))?;
    let mut list: Vec<c_int> = vec![0; count.max(0) as usize];
    // SAFETY: the call writes `count` integers.
    unsafe { sys::nvrtcGetSupportedArchs(list.as_mut_ptr()) }
        .result()
        .map_err(|e| failed(format!("asking for architectures: {e}")))?;
    Ok(list.into_iter().map(|n| n as u32).collect())
}

/// NVRTC's version, as part of a cache key.
fn version() -> (c_int, c_int) {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the call writes two integers. A failure leaves zeros, which make a key as well.
    let _ = unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    (major, minor)
}

struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `create_program`, destroyed once.
        let _ = unsafe { nvrtc::destroy_program(self.0) };
    }
}

/// Compiles to machine code or PTX (which ends in a NUL); an error carries the compiler's log.
pub(crate) fn compile(source: Source, target: Target) -> Result<Vec<u8>> {
    let text = CString::new(source.text()).map_err(|_| failed("a kernel's source contains a NUL"))?;
    let name = CString::new(format!("{}.cu", source.name())).unwrap_or_default();
    let program = nvrtc::create_program(&text, Some(&name)).map_err(|e| failed(format!("{}: {e}", source.name())))?;
    let program = Program(program);
    // SAFETY: the program is alive until the end of this function, its text too.
    let compiled = unsafe { nvrtc::compile_program(program.0, &["--std=c++17".to_string(), target.flag()]) };
    if let Err(error) = compiled {
        // SAFETY: as above.
        let log = unsafe { nvrtc::get_program_log(program.0) }.unwrap_or_default();
        let log: Vec<u8> = log.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
        let log = String::from_utf8_lossy(&log).into_owned();
        return Err(failed(format!("{} for {target:?}: {error}\n{log}", source.name())));
    }
    let no_image = |e| failed(format!("{}: no image: {e}", source.name()));
    match target {
        Target::Virtual(_) => {
            // SAFETY: as above.
            let ptx = unsafe { nvrtc::get_ptx(program.0) }.map_err(no_image)?;
            let mut ptx: Vec<u8> = ptx.into_iter().map(|c| c as u8).collect();
            if CStr::from_bytes_until_nul(&ptx).is_err() {
                ptx.push(0);
            }
            Ok(ptx)
        }
        Target::Real(_) => {
            let mut size = 0;
            // SAFETY: as above; the call writes one size.
            unsafe { sys::nvrtcGetCUBINSize(program.0, &mut size) }.result().map_err(no_image)?;
            let mut image = vec![0u8; size];
            // SAFETY: as above; the call writes `size` bytes.
            unsafe { sys::nvrtcGetCUBIN(program.0, image.as_mut_ptr().cast()) }.result().map_err(no_image)?;
            Ok(image)
        }
    }
}

/// The image for a GPU of architecture `gpu`, from the disk or the compiler, given to `load`. A stored image that does not load is
/// compiled again.
pub(crate) fn image<M>(source: Source, gpu: u32, load: impl Fn(&[u8]) -> Result<M>) -> Result<M> {
    let Some(target) = Target::choose(gpu, &supported()?) else {
        return Err(failed(format!(
            "this version does not compile for architecture {gpu}; install another CUDA toolkit"
        )));
    };
    let (major, minor) = version();
    let key = cache::hash(&[source.text().as_bytes(), target.flag().as_bytes(), format!("{major}.{minor}").as_bytes()]);
    let name = format!("{}-{gpu}-{key:032x}", source.name());
    let folder = cache::folder();
    let stored = folder.as_deref().and_then(|folder| cache::read(folder, &name));
    if let Some(module) = stored.and_then(|image| load(&image).ok()) {
        return Ok(module);
    }
    let image = compile(source, target)?;
    let module = load(&image)?;
    if let Some(folder) = &folder {
        cache::write(folder, &name, &image);
    }
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::{super::launch, super::library::Library, *};
    use std::collections::BTreeMap;

    #[test]
    fn a_gpu_newer_than_the_compiler_gets_ptx() {
        assert_eq!(Target::choose(90, &[75, 80, 90]), Some(Target::Real(90)));
        assert_eq!(Target::choose(120, &[75, 80, 90]), Some(Target::Virtual(90)));
        assert_eq!(Target::choose(60, &[75, 80]), None);
    }

    /// Kernels in a PTX text and the sizes of their parameters.
    fn signatures(ptx: &str) -> BTreeMap<String, Vec<usize>> {
        let mut all = BTreeMap::new();
        for entry in ptx.split(".entry ").skip(1) {
            let (name, rest) = entry.split_once('(').unwrap();
            let list = rest.split_once(')').unwrap().0;
            let sizes = list.split(',').map(|param| {
                let param = param.trim();
                match param.rsplit_once('[') {
                    Some((_, bytes)) => bytes.trim_end_matches(']').parse().unwrap(),
                    None if param.contains(".u64") || param.contains(".f64") || param.contains(".b64") => 8,
                    None => 4,
                }
            });
            all.insert(name.trim().to_string(), sizes.collect());
        }
        all
    }

    #[test]
    fn every_kernel_compiles_and_takes_what_the_launches_give() {
        if let Err(error) = Library::Nvrtc.check() {
            return println!("skipped: no libnvrtc ({error})");
        }
        let mut checked = 0;
        for &source in Source::ALL {
            for target in [Target::Virtual(80), Target::Virtual(90), Target::Real(80), Target::Real(90)] {
                let image = compile(source, target).unwrap();
                assert!(!image.is_empty());
                if let Target::Virtual(_) = target {
                    let text = String::from_utf8(image.strip_suffix(b"\0").unwrap_or(&image).to_vec()).unwrap();
                    let found = signatures(&text);
                    let wanted: BTreeMap<_, _> = launch::kernels()
                        .into_iter()
                        .filter(|(of, _, _)| *of == source)
                        .map(|(_, name, letters)| {
                            let size = |letter| match letter {
                                'f' => 4,
                                'n' => size_of::<launch::Nest>(),
                                'g' => size_of::<launch::Images>(),
                                'm' => size_of::<launch::Thin>(),
                                _ => 8,
                            };
                            (name, letters.chars().map(size).collect::<Vec<usize>>())
                        })
                        .collect();
                    assert_eq!(found, wanted);
                    checked += found.len();
                }
            }
        }
        println!("{checked} kernels compiled and compared");
    }
}
