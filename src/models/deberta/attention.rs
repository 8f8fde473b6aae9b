//! Disentangled attention: scores of contents with contents, and of contents with relative positions.

use super::{DebertaConfig, PositionTerms};
use crate::{
    autodiff::{Attention, RelativePositions, Var},
    error::Result,
    models::{
        Tokens,
        transformer::{drop_probabilities, join_heads, split_heads},
    },
    module,
    nn::{Dropout, Linear, Mode},
    scalar::Scalar,
};

/// For query i and key j, with $\delta$ the bucket of their distance,
///
/// $$S_{ij} = \frac{q_i \cdot k_j + q_i \cdot k^r_{\delta(i, j)} + k_j \cdot q^r_{\delta(j, i)}}{\sqrt{d\,t}},$$
///
/// with t the number of terms that there are. $k^r$ and $q^r$ are what the projections make of the table of relative positions: those of
/// contents (`share_att_key`), with their adapters, or projections of their own.
#[derive(Debug, Clone)]
pub(super) struct SelfAttention<T: Scalar> {
    query: Linear<T>,
    key: Linear<T>,
    value: Linear<T>,
    position_key: Option<Linear<T>>,
    position_query: Option<Linear<T>>,
    heads: usize,
    terms: PositionTerms,
    dropout: f64,
    position_dropout: Dropout,
}
module!(SelfAttention {
    query => "query_proj", key => "key_proj", value => "value_proj",
    position_key => "pos_key_proj", position_query => "pos_query_proj",
});

/// Relative positions of a pass.
pub(super) struct Relative<T: Scalar> {
    /// The rows that are looked up, `[R, width]`.
    pub(super) table: Var<T>,
    /// Where, counted from the first of them.
    pub(super) positions: RelativePositions,
}

impl<T: Scalar> Relative<T> {
    /// Those that the first token sees, without another look-up.
    pub(super) fn first_query(&self) -> Result<Self> {
        let positions = self.positions.first_query()?;
        Ok(Self { table: self.table.narrow(0, 0..positions.range().end)?, positions })
    }
}

impl<T: Scalar> SelfAttention<T> {
    pub(super) fn zeros(config: &DebertaConfig) -> Result<Self> {
        let (width, terms) = (config.hidden_size, config.pos_att_type);
        let own = config.relative_attention && !config.share_att_key;
        let linear = |wanted: bool| if wanted { Linear::zeros(width, width).map(Some) } else { Ok(None) };
        Ok(Self {
            query: Linear::zeros(width, width)?,
            key: Linear::zeros(width, width)?,
            value: Linear::zeros(width, width)?,
            position_key: linear(own && terms.c2p)?,
            position_query: linear(own && terms.p2c)?,
            heads: config.num_attention_heads,
            terms,
            dropout: config.attention_probs_dropout_prob,
            position_dropout: Dropout::new(config.hidden_dropout_prob, 1)?,
        })
    }

    /// What the states `queries` `[B, N, width]` find in x `[B, M, width]`: `[B, N, width]`.
    pub(super) fn forward(
        &self,
        queries: &Var<T>,
        x: &Var<T>,
        tokens: &Tokens<T>,
        relative: Option<&Relative<T>>,
        mode: Mode,
    ) -> Result<Var<T>> {
        let q = split_heads(&self.query.forward(queries, mode)?, self.heads)?;
        let k = split_heads(&self.key.forward(x, mode)?, self.heads)?;
        let v = split_heads(&self.value.forward(x, mode)?, self.heads)?;
        let terms = 1 + usize::from(self.terms.c2p) + usize::from(self.terms.p2c);
        let scale = ((q.shape()[3] * terms) as f64).sqrt().recip();
        let mut options = drop_probabilities(Attention::new().scale(scale), self.dropout, mode.fork(0));
        if let Some(mask) = tokens.attention_mask() {
            options = options.mask(mask);
        }
        if let Some(relative) = relative.filter(|_| self.terms.c2p || self.terms.p2c) {
            options = options.bias(&self.bias(&q, &k, relative, scale, mode.fork(1))?);
        }
        join_heads(&q.attention(&k, &v, &options)?)
    }

    /// The scores of q `[B, H, N, d]` and k `[B, H, M, d]` with relative positions, `[B, H, N, M]`.
    fn bias(&self, q: &Var<T>, k: &Var<T>, relative: &Relative<T>, scale: f64, mode: Mode) -> Result<Var<T>> {
        let table = self.position_dropout.forward(&relative.table, mode)?;
        // [H, R, d] becomes [H, d, R], and all samples meet it.
        let scores = |contents: &Var<T>, projection: &Linear<T>| {
            let positions = split_heads(&projection.forward(&table, mode)?, self.heads)?;
            contents.matmul(&positions.permute(&[0, 2, 1])?)
        };
        let of = |wanted: bool, contents, projection| wanted.then(|| scores(contents, projection)).transpose();
        let c2p = of(self.terms.c2p, q, self.position_key.as_ref().unwrap_or(&self.key))?;
        let p2c = of(self.terms.p2c, k, self.position_query.as_ref().unwrap_or(&self.query))?;
        Var::disentangled_bias(c2p.as_ref(), p2c.as_ref(), &relative.positions, scale)
    }
}
