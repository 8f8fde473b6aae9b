//! Tucker and CP on a real tensor: blood samples x viral antigens x antibody receptors.

use ndarray::{Ix2, Ix3};
use plotters::{
    coord::Shift,
    prelude::{ChartBuilder, DrawingArea, IntoDrawingArea, IntoFont, RGBColor, Rectangle, SVGBackend, Text, WHITE},
    style::{Color, TextStyle},
};
use std::{error::Error, path::Path, time::Instant};
use tenfold::{
    Tensor,
    decomp::{Cp, CpAls, Hooi, StHosvd},
};

const DATA: &[u8] = include_bytes!("../data/COVID19_data.npy");

/// The samples in order: state of the patient, how many, and a colour.
const STATES: [(&str, usize, RGBColor); 5] = [
    ("negative", 39, RGBColor(90, 140, 90)),
    ("mild", 7, RGBColor(230, 180, 60)),
    ("moderate", 122, RGBColor(225, 140, 60)),
    ("severe", 196, RGBColor(200, 80, 60)),
    ("deceased", 74, RGBColor(90, 60, 90)),
];
const ANTIGENS: [&str; 6] = ["S", "RBD", "N", "S1", "S2", "S1 trimer"];
const RECEPTORS: [&str; 11] =
    ["IgG1", "IgG2", "IgG3", "IgA1", "IgA2", "IgM", "FcRalpha", "FcR2A", "FcR2B", "FcR3A", "FcR3B"];
const COMPONENTS: usize = 4;
const BAR: RGBColor = RGBColor(60, 100, 150);

/// Decomposes the tensor, explains what is found, and draws it to a file.
pub fn run(picture: &Path) -> Result<(), Box<dyn Error>> {
    let x: Tensor<f64, Ix3> = Tensor::read_npy(DATA)?;
    println!("A tensor of order 3: {} blood samples x {} viral antigens x {} antibody receptors,", 438, 6, 11);
    println!(
        "how strongly the antibodies of each patient bind. ({} numbers; data: examples/data/README.md)\n",
        x.len()
    );
    compress(&x)?;
    let cp = explain(&x)?;
    draw(&cp, picture)?;
    println!("\n   The picture: {}\n", picture.display());
    Ok(())
}

/// Tucker by tolerance and by ranks.
fn compress(x: &Tensor<f64, Ix3>) -> tenfold::Result<()> {
    println!("1. Compression: the smallest Tucker decomposition that ST-HOSVD finds within a relative error\n");
    println!("   {:>9}  {:>12}  {:>9}  {:>8}  {:>7}  {:>7}", "tolerance", "ranks", "error", "numbers", "smaller", "ms");
    for tolerance in [0.5, 0.4, 0.3, 0.2, 0.1] {
        let start = Instant::now();
        let fit = StHosvd::tolerance(tolerance).fit(x)?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        let ranks: Vec<String> = fit.ranks().iter().map(usize::to_string).collect();
        println!(
            "   {tolerance:>9}  {:>12}  {:>9.4}  {:>8}  {:>6.1}x  {ms:>7.2}",
            ranks.join(" x "),
            fit.relative_error,
            fit.parameters(),
            fit.compression_ratio(),
        );
    }
    let ranks = [6, 4, 5];
    let start = StHosvd::ranks(ranks).fit(x)?;
    let best = Hooi::ranks(ranks).fit(x)?;
    println!(
        "\n   With ranks {ranks:?}: ST-HOSVD leaves {:.6} of the norm, HOOI {:.6} after",
        start.relative_error, best.relative_error
    );
    println!("   {} sweeps: the direct method is nearly the best one.\n", best.sweeps());
    Ok(())
}

/// CP: the components and what they are about.
fn explain(x: &Tensor<f64, Ix3>) -> tenfold::Result<Cp<f64, Ix3>> {
    println!("2. Explanation: CP writes the tensor as a sum of parts, each a pattern over samples times one");
    println!("   over antigens times one over receptors. How much of the tensor do R parts explain?\n");
    let mut chosen = None;
    for rank in 1..=6 {
        let fit = CpAls::rank(rank).seed(1).starts(4).sweeps(200).fit(x)?;
        let explained = 1.0 - fit.relative_error.powi(2);
        let mark = if rank == COMPONENTS { "  <- drawn" } else { "" };
        println!(
            "   R = {rank}: {:>5.1} % of the squared norm, in {} numbers{mark}",
            100.0 * explained,
            fit.parameters()
        );
        if rank == COMPONENTS {
            chosen = Some(fit.into_inner());
        }
    }
    let Some(cp) = chosen else { unreachable!("COMPONENTS lies in the range above") };
    println!(
        "\n   The {COMPONENTS} parts, the heaviest first (mean over the samples of a state, in units of the part's size):\n"
    );
    let states: Vec<String> = STATES.iter().map(|(name, ..)| format!("{name:>9}")).collect();
    println!("   part  weight {}   binds most", states.join(""));
    for r in 0..COMPONENTS {
        let column = |mode: usize| cp.factors()[mode].index_mode(1, r)?.to_vec();
        let (samples, antigens, receptors) = (column(0)?, column(1)?, column(2)?);
        let mut start = 0;
        let means: Vec<String> = STATES
            .iter()
            .map(|&(_, count, _)| {
                let mean = samples[start..start + count].iter().sum::<f64>() / count as f64;
                start += count;
                format!("{:>9.2}", mean * (samples.len() as f64).sqrt())
            })
            .collect();
        let weight = cp.weights().get(&[r])?;
        println!(
            "   {r:>4}  {weight:>6.1} {}   {} by {}",
            means.join(""),
            ANTIGENS[peak(&antigens)],
            RECEPTORS[peak(&receptors)]
        );
    }
    let again = CpAls::rank(COMPONENTS).seed(2).starts(4).sweeps(200).fit(x)?;
    println!(
        "\n   Are they there, or an accident of the start? Four other starts find parts like them: the cosine\n   \
         between a part and its like is {:.3} at least (1 is the same; 0.95 is commonly called equal).",
        cp.congruence(&again)?.least()
    );
    Ok(cp)
}

fn peak(values: &[f64]) -> usize {
    (0..values.len()).max_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs())).unwrap_or(0)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One row a component, one panel a mode.
fn draw(cp: &Cp<f64, Ix3>, path: &Path) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (960, 150 * COMPONENTS as u32 + 96)).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, rest) = root.split_vertically(52);
    let (body, foot) = rest.split_vertically(150 * COMPONENTS as u32);
    let style = |size: i32| TextStyle::from(("sans-serif", size).into_font());
    head.draw(&Text::new(
        "Four CP components of a serology tensor (438 samples x 6 antigens x 11 receptors)",
        (20, 8),
        style(18),
    ))?;
    for (x, title) in [(60, "samples, by state of the patient"), (510, "antigens"), (690, "receptors")] {
        head.draw(&Text::new(title, (x, 32), style(14)))?;
    }
    let rows = body.split_evenly((COMPONENTS, 1));
    for (r, row) in rows.iter().enumerate() {
        let (samples, others) = row.split_horizontally(480);
        let (antigens, receptors) = others.split_horizontally(190);
        row.draw(&Text::new(format!("{r}"), (20, 60), style(16)))?;
        let states =
            STATES.iter().flat_map(|&(_, count, colour)| std::iter::repeat_n(colour, count)).collect::<Vec<_>>();
        panel(&samples, &column(cp, 0, r)?, &states, &[])?;
        panel(&antigens, &column(cp, 1, r)?, &[BAR; 6], &ANTIGENS)?;
        panel(&receptors, &column(cp, 2, r)?, &[BAR; 11], &RECEPTORS)?;
    }
    let mut x = 60;
    for (name, _, colour) in STATES {
        foot.draw(&Rectangle::new([(x, 14), (x + 12, 26)], colour.filled()))?;
        foot.draw(&Text::new(name, (x + 17, 13), style(13)))?;
        x += 84;
    }
    root.present()?;
    Ok(())
}

fn column(cp: &Cp<f64, Ix3>, mode: usize, r: usize) -> tenfold::Result<Vec<f64>> {
    let factor: &Tensor<f64, Ix2> = &cp.factors()[mode];
    factor.index_mode(1, r)?.to_vec()
}

/// Bars of one factor column.
fn panel(area: &Area<'_>, values: &[f64], colours: &[RGBColor], names: &[&str]) -> Result<(), Box<dyn Error>> {
    let largest = values.iter().fold(0.0f64, |a, b| a.max(b.abs())) * 1.1;
    let labels = if names.is_empty() { 8 } else { 46 };
    let mut chart = ChartBuilder::on(area)
        .margin(6)
        .margin_left(if names.is_empty() { 40 } else { 12 })
        .margin_bottom(labels)
        .build_cartesian_2d(0.0..values.len() as f64, -largest..largest)?;
    let gap = if names.is_empty() { 0.0 } else { 0.12 };
    chart.draw_series(values.iter().zip(colours).enumerate().map(|(i, (&value, colour))| {
        Rectangle::new([(i as f64 + gap, 0.0), (i as f64 + 1.0 - gap, value)], colour.filled())
    }))?;
    chart.draw_series(std::iter::once(Rectangle::new(
        [(0.0, 0.0), (values.len() as f64, 0.0)],
        RGBColor(120, 120, 120).stroke_width(1),
    )))?;
    for (i, name) in names.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(i as f64 + 0.5, -largest));
        let (left, top) = area.get_base_pixel();
        let font = ("sans-serif", 11).into_font().transform(plotters::style::FontTransform::Rotate90);
        area.draw(&Text::new(*name, (x - left + 5, y - top + 4), TextStyle::from(font)))?;
    }
    Ok(())
}
