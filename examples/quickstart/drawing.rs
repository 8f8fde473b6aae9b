//! The picture of the adaptation: digits before and after, and what each method came to.

use crate::digits::Row;
use plotters::{
    coord::Shift,
    prelude::{DrawingArea, IntoDrawingArea, IntoFont, RGBColor, Rectangle, SVGBackend, Text, WHITE},
    style::{Color, TextStyle},
};
use std::{error::Error, path::Path};
use tenfold::vision::RgbImage;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const DARK: RGBColor = RGBColor(60, 100, 150);
const LIGHT: RGBColor = RGBColor(170, 190, 210);

/// Where bars begin, and how long one of 100 % is.
const BARS: (i32, i32) = (150, 560);

/// Draws everything; `lost` is the accuracy without adaptation.
pub fn adaptation(
    path: &Path,
    before: &[RgbImage],
    after: &[RgbImage],
    rows: &[Row],
    lost: f64,
) -> Result<(), Box<dyn Error>> {
    let height = 270 + 34 * (rows.len() as u32 + 1);
    let root = SVGBackend::new(path, (960, height)).into_drawing_area();
    root.fill(&WHITE)?;
    text(&root, "A small ConvNeXt-V2 moves to digits that look otherwise", (20, 10), 18)?;
    text(&root, "learnt", (20, 62), 14)?;
    text(&root, "changed", (20, 142), 14)?;
    for (top, images) in [(40, before), (120, after)] {
        for (i, image) in images.iter().enumerate() {
            pixels(&root, image, (BARS.0 + 78 * i as i32, top))?;
        }
    }
    text(
        &root,
        "accuracy on changed digits that were not seen, and the numbers that train beside the head",
        (20, 206),
        14,
    )?;
    bar(&root, 0, "as it is", lost, None)?;
    for (i, row) in rows.iter().enumerate() {
        bar(&root, i as i32 + 1, &row.name, row.accuracy, Some(row.trainable))?;
    }
    root.present()?;
    Ok(())
}

/// A bar with its name, and a number at the right.
fn bar(area: &Area<'_>, place: i32, name: &str, share: f64, trainable: Option<usize>) -> Result<(), Box<dyn Error>> {
    let (top, end) = (236 + 34 * place, BARS.0 + (f64::from(BARS.1) * share) as i32);
    let colour = if trainable.is_some() { DARK } else { LIGHT };
    text(area, name, (20, top + 4), 14)?;
    area.draw(&Rectangle::new([(BARS.0, top), (end, top + 22)], colour.filled()))?;
    text(area, &format!("{:.1} %", 100.0 * share), (end + 8, top + 4), 14)?;
    match trainable {
        Some(trainable) => text(area, &format!("{trainable} numbers"), (BARS.0 + BARS.1 + 80, top + 4), 14),
        None => Ok(()),
    }
}

fn pixels(area: &Area<'_>, image: &RgbImage, (left, top): (i32, i32)) -> Result<(), Box<dyn Error>> {
    let size = 64 / image.width().max(1) as i32;
    for (x, y, pixel) in image.enumerate_pixels() {
        let (x, y, [red, green, blue]) = (left + size * x as i32, top + size * y as i32, pixel.0);
        area.draw(&Rectangle::new([(x, y), (x + size, y + size)], RGBColor(red, green, blue).filled()))?;
    }
    Ok(())
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), size: i32) -> Result<(), Box<dyn Error>> {
    area.draw(&Text::new(text, at, TextStyle::from(("sans-serif", size).into_font())))?;
    Ok(())
}
