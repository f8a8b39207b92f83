//! Query strings. Written by hand: the queries of the API are a handful of plain members, and
//! each is destructured so that a new one breaks the build.

use std::fmt::Write as _;

use volapi::hosts::OrdersQuery;
use volapi::list::{ListQuery, View};
use volapi::mounts::ReleaseQuery;
use volapi::snapshots::SnapshotQuery;
use volapi::volumes::{DisposalQuery, RemoveQuery};

/// A path that grows a query.
pub(crate) struct Path {
    text: String,
    separator: char,
}

impl Path {
    pub(crate) fn new(path: impl Into<String>) -> Self {
        Path { text: path.into(), separator: '?' }
    }

    fn with(mut self, key: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.text.push(self.separator);
            self.text.push_str(key);
            self.text.push('=');
            escape(value, &mut self.text);
            self.separator = '&';
        }
        self
    }

    pub(crate) fn list(self, query: &ListQuery) -> Self {
        let ListQuery { tenant, limit, next, view } = query;
        let view = view.map(|view| match view {
            View::Full => "full",
            View::Brief => "brief",
        });
        self.with("tenant", tenant.as_deref())
            .with("limit", limit.map(|limit| limit.to_string()).as_deref())
            .with("continue", next.as_deref())
            .with("view", view)
    }

    pub(crate) fn remove(self, query: RemoveQuery) -> Self {
        let RemoveQuery { metadata_only, disposal } = query;
        let disposal = disposal.map(|disposal| match disposal {
            DisposalQuery::Delete => "delete",
            DisposalQuery::Trash => "trash",
        });
        self.with("metadata-only", metadata_only.then_some("true")).with("disposal", disposal)
    }

    pub(crate) fn snapshots(self, query: SnapshotQuery) -> Self {
        let SnapshotQuery { usage } = query;
        self.with("usage", usage.then_some("true"))
    }

    pub(crate) fn orders(self, query: OrdersQuery) -> Self {
        let OrdersQuery { wait, after } = query;
        self.with("wait", wait.map(|wait| wait.to_string()).as_deref())
            .with("after", after.map(|after| after.to_string()).as_deref())
    }

    pub(crate) fn release(self, query: &ReleaseQuery) -> Self {
        let ReleaseQuery { host, boot_id, force, unfenced } = query;
        self.with("host", host.as_ref().map(AsRef::as_ref))
            .with("boot_id", boot_id.as_ref().map(AsRef::as_ref))
            .with("force", force.then_some("true"))
            .with("unsafe", unfenced.then_some("true"))
    }

    pub(crate) fn into_string(self) -> String {
        self.text
    }
}

/// Leaves RFC 3986's unreserved characters and the slash, which a query may carry.
fn escape(value: &str, into: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                into.push(char::from(byte));
            }
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(into, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_written_as_the_server_reads_them() {
        assert_eq!(Path::new("/p").into_string(), "/p");
        let list = ListQuery {
            tenant: Some("t".into()),
            limit: Some(7),
            next: Some("t/v &%ä".into()),
            view: Some(View::Brief),
        };
        assert_eq!(
            Path::new("/p").list(&list).into_string(),
            "/p?tenant=t&limit=7&continue=t/v%20%26%25%C3%A4&view=brief"
        );
        let remove = RemoveQuery { metadata_only: true, disposal: Some(DisposalQuery::Trash) };
        assert_eq!(
            Path::new("/p").remove(remove).into_string(),
            "/p?metadata-only=true&disposal=trash"
        );
        let usage = SnapshotQuery { usage: true };
        assert_eq!(Path::new("/p").snapshots(usage).into_string(), "/p?usage=true");
        let release = ReleaseQuery {
            host: Some("h1".parse().unwrap()),
            boot_id: Some("b".parse().unwrap()),
            force: true,
            unfenced: true,
        };
        assert_eq!(
            Path::new("/p").release(&release).into_string(),
            "/p?host=h1&boot_id=b&force=true&unsafe=true"
        );
    }
}
