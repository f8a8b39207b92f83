//! Pages of lists, cut out of mirrors.

use std::sync::Arc;

use volapi::list::{DEFAULT_PAGE, LARGEST_PAGE, ListQuery};
use volcore::Kind;
use volcore::name::{NameError, TenantName};
use volstore::cache::Mirror;
use volstore::store::{Key, Revision, StoreError};

use super::{Failing, store_kind};

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The page size is out of range.
    #[error("limit is {limit}: at least 1, at most {LARGEST_PAGE}")]
    Limit {
        /// What was asked for.
        limit: usize,
    },
    /// `?tenant=` is no name.
    #[error("tenant cannot be looked for")]
    Tenant(#[source] NameError),
    /// `?tenant=` on a list that has none.
    #[error("tenants cannot be filtered by tenant")]
    NoSuchFilter,
    /// `?continue=` is not where a page ended.
    #[error("continue={given:?} is not from an earlier page")]
    Continue {
        /// What was given, cut to 80 characters.
        given: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The mirror lags behind the store.
    #[error(
        "the list is not up to date: it has seen revision {} of {store}, which is at {}",
        seen.0,
        wanted.0
    )]
    Behind {
        /// Which store.
        store: String,
        /// What the mirror has seen.
        seen: Revision,
        /// What the store has.
        wanted: Revision,
    },
    /// The store does not say how far it is.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failing for ListError {
    fn kind(&self) -> Kind {
        match self {
            ListError::Limit { .. }
            | ListError::Tenant(_)
            | ListError::NoSuchFilter
            | ListError::Continue { .. } => Kind::Invalid,
            ListError::Behind { .. } => Kind::Unavailable,
            ListError::Store(error) => store_kind(error),
        }
    }
}

/// Which part of a list is asked for.
#[derive(Clone, Debug)]
pub struct ListAsk<N> {
    /// Only this tenant's.
    pub tenant: Option<TenantName>,
    /// After this one.
    pub after: Option<N>,
    /// At most so many.
    pub limit: usize,
}

impl<N> ListAsk<N>
where
    N: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    /// Checks a query.
    pub fn read(query: &ListQuery) -> Result<Self, ListError> {
        let ListQuery { tenant, limit, next, view: _ } = query;
        let limit = limit.unwrap_or(DEFAULT_PAGE);
        if !(1..=LARGEST_PAGE).contains(&limit) {
            return Err(ListError::Limit { limit });
        }
        let tenant = tenant.as_deref().map(str::parse).transpose().map_err(ListError::Tenant)?;
        let after = next.as_deref().map(str::parse).transpose().map_err(|source: N::Err| {
            let given = next.iter().flat_map(|text| text.chars()).take(80).collect();
            ListError::Continue { given, source: Box::new(source) }
        })?;
        Ok(ListAsk { tenant, after, limit })
    }
}

/// A page: records of one moment.
#[derive(Clone, Debug)]
pub struct Slice<T> {
    /// The records, in the order of their names.
    pub records: Vec<Arc<T>>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// Cuts a page out of a mirror. Quick: nothing is copied but pointers.
pub(crate) fn slice<T: Send + Sync + 'static>(
    mirror: &Mirror<T>,
    prefix: &Key,
    after: Option<&Key>,
    limit: usize,
) -> Slice<T> {
    mirror.read(|view| {
        let mut found = view.below(prefix, after);
        let records = found.by_ref().take(limit).map(|(_, kept)| kept.record.clone()).collect();
        Slice { records, more: found.next().is_some() }
    })
}
