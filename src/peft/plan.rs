//! [`Plan`]: what would train, before anything does.

use super::{
    method::{Method, Outline},
    site::Site,
};
use crate::{error::Result, scalar::Scalar};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What trains in a model: one row for each adapted layer and for each of the model's own parameters that trains.
///
/// Printed, it is a table; what is questionable is listed below it.
///
/// ```
/// use tenfold::{autodiff::Conv, nn::Operation, peft::{Flora, Plan, Site}};
///
/// let options = Conv::new().padding(3).groups(96);
/// let sites = [
///     Site::new("dwconv", Operation::Conv(&options), &[96, 1, 7, 7])?,
///     Site::new("pwconv1", Operation::Linear, &[384, 96])?,
/// ];
/// let plan = Plan::of::<f32>(&Flora::new().rank(40).kernel_rank(3), &sites)?;
/// assert_eq!(plan.parameters(), 18_322 + 20_800);
/// assert_eq!(plan.degrees_of_freedom(), 888 + 17_600);
/// let table = plan.to_string();
/// assert!(table.contains("\"dwconv\": the adapter has 18322 parameters, its weight 4704"));
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order of the model.
    pub rows: Vec<PlanRow>,
    /// How many parameters the model has without adapters; of a plan from sites alone, their weights.
    pub model: usize,
}

/// A line of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRow {
    /// The layer, or the parameter.
    pub name: String,
    /// Of the weight, or of the parameter.
    pub shape: Vec<usize>,
    /// [`Method::name`], or `"kept"` for what trains beside it.
    pub method: String,
    /// What trains.
    pub outline: Outline,
    /// Whether an adapter is attached; otherwise a parameter of the model itself trains.
    pub attached: bool,
}

impl PlanRow {
    /// Of a layer.
    pub(super) fn attached<T: Scalar>(method: &dyn Method<T>, site: &Site<'_>) -> Result<Self> {
        Ok(Self {
            name: site.name().to_string(),
            shape: site.shape().to_vec(),
            method: method.name().to_string(),
            outline: method.outline(site)?,
            attached: true,
        })
    }

    /// Of a parameter of the model itself.
    pub(super) fn own(name: &str, shape: &[usize], method: &str) -> Self {
        let entries = shape.iter().product();
        let outline = Outline { parameters: entries, degrees_of_freedom: entries, ..Outline::default() };
        Self { name: name.to_string(), shape: shape.to_vec(), method: method.to_string(), outline, attached: false }
    }

    /// What is questionable about it.
    fn warning(&self) -> Option<String> {
        let entries: usize = self.shape.iter().product();
        let Outline { parameters, degrees_of_freedom, .. } = self.outline;
        // A bottleneck is no update of the norm's weight, which it stands at.
        (self.attached && self.shape.len() > 1 && parameters > entries).then(|| {
            format!(
                "{:?}: the adapter has {parameters} parameters, its weight {entries}; it reaches {degrees_of_freedom} directions",
                self.name
            )
        })
    }
}

impl Plan {
    /// That of a method at every one of some sites.
    ///
    /// # Errors
    /// Those of the method.
    pub fn of<T: Scalar>(method: &dyn Method<T>, sites: &[Site<'_>]) -> Result<Self> {
        let settled = method.settled(sites)?;
        let method = settled.as_deref().unwrap_or(method);
        let rows = sites.iter().map(|site| PlanRow::attached(method, site)).collect::<Result<_>>()?;
        Ok(Self { rows, model: sites.iter().map(Site::entries).sum() })
    }

    /// How many numbers train.
    pub fn parameters(&self) -> usize {
        self.rows.iter().map(|row| row.outline.parameters).sum()
    }

    /// How many of them belong to adapters.
    pub fn adapter_parameters(&self) -> usize {
        self.rows.iter().filter(|row| row.attached).map(|row| row.outline.parameters).sum()
    }

    /// The dimension of what all of it reaches: the sum over rows.
    pub fn degrees_of_freedom(&self) -> usize {
        self.rows.iter().map(|row| row.outline.degrees_of_freedom).sum()
    }

    /// Columns of factors that reach nothing.
    pub fn wasted_columns(&self) -> usize {
        self.rows.iter().map(|row| row.outline.wasted_columns).sum()
    }

    /// What is questionable: adapters with more parameters than their weight has.
    pub fn warnings(&self) -> Vec<String> {
        self.rows.iter().filter_map(PlanRow::warning).collect()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = |sizes: &[usize], between: &str| {
            let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
            if sizes.is_empty() { "-".to_string() } else { sizes.join(between) }
        };
        let total = self.parameters();
        let share = |parameters: usize| format!("{:.2} %", 100.0 * parameters as f64 / total.max(1) as f64);
        let line = |name: &str, shape: String, method: &str, ranks: String, outline: &Outline| {
            let [parameters, reached, wasted] =
                [outline.parameters, outline.degrees_of_freedom, outline.wasted_columns].map(|n| n.to_string());
            [name.into(), shape, method.into(), ranks, parameters, reached, wasted, share(outline.parameters)]
        };
        let heads =
            ["name", "shape", "method", "ranks", "parameters", "reached", "wasted", "share"].map(str::to_string);
        let rows = self.rows.iter().map(|row| {
            line(&row.name, sizes(&row.shape, " x "), &row.method, sizes(&row.outline.ranks, ", "), &row.outline)
        });
        let sum = Outline {
            ranks: Vec::new(),
            parameters: total,
            degrees_of_freedom: self.degrees_of_freedom(),
            wasted_columns: self.wasted_columns(),
        };
        let last = line("total", String::new(), "", String::new(), &sum);
        let table: Vec<[String; 8]> = std::iter::once(heads).chain(rows).chain([last]).collect();
        let widths: [usize; 8] =
            std::array::from_fn(|i| table.iter().map(|cells| cells[i].chars().count()).max().unwrap_or(0));
        for cells in &table {
            let cells: Vec<String> = cells
                .iter()
                .zip(widths)
                .enumerate()
                // Words to the left, numbers to the right.
                .map(|(i, (cell, width))| if i < 4 { format!("{cell:<width$}") } else { format!("{cell:>width$}") })
                .collect();
            writeln!(f, "{}", cells.join("  "))?;
        }
        let all = self.model + self.adapter_parameters();
        write!(f, "{total} of {all} parameters train ({:.2} %)", 100.0 * total as f64 / all.max(1) as f64)?;
        self.warnings().into_iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}
