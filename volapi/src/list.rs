//! Lists, which come in pages.

use serde::{Deserialize, Serialize};

/// The largest page that is served.
pub const LARGEST_PAGE: usize = 20_000;
/// The page that is served when a request does not say.
pub const DEFAULT_PAGE: usize = 1_000;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing<T> {
    /// The items, in the order of their names.
    pub items: Vec<T>,
    /// Given back as `?continue=` for the next page; absent on the last one.
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Listing<T> {
    /// A list that fits one page.
    pub fn whole(items: Vec<T>) -> Self {
        Listing { items, next: None }
    }
}

/// The query of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Only this tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// At most so many, 1 to [`LARGEST_PAGE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where the last page ended.
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// `brief` for names, states and dates only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<View>,
}

/// How much of each item a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// Everything.
    Full,
    /// Names, states and dates.
    Brief,
}
