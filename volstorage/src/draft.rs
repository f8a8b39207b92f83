//! The names of images that are being made: `.new.<uid>.<attempt>.<name>`, and of those among them of
//! which nothing will come: `.old.<uid>.<attempt>.<name>`.
//!
//! One rule for all drivers. No volume's image can have such a name, because a tenant's name begins
//! with a letter or a digit. It ends with the name that the image will have, so that whoever finds
//! what an attempt has left knows where to look for the rest.

use uuid::Uuid;

use crate::image::{ImageError, Unfinished};

const INCOMING: &str = ".new.";
const OUTGOING: &str = ".old.";

/// A name for a new attempt to make the image of that volume, to be called `image`.
pub(crate) fn name(uid: Uuid, image: &str) -> String {
    let attempt = Uuid::new_v4().simple().to_string();
    format!("{INCOMING}{uid}.{}.{image}", &attempt[..8])
}

/// The volume for which an image of this name was being made.
pub(crate) fn uid(name: &str) -> Option<Uuid> {
    let (uid, attempt) = rest(name)?.split_once('.')?;
    if attempt.is_empty() { None } else { uid.parse().ok() }
}

/// The name that the image was to have.
pub(crate) fn image(name: &str) -> Option<&str> {
    let (_, attempt) = rest(name)?.split_once('.')?;
    attempt.split_once('.').map(|(_, image)| image)
}

/// What an attempt is called while it is made.
pub(crate) fn incoming(name: &str) -> String {
    rest(name).map_or_else(|| name.to_owned(), |rest| format!("{INCOMING}{rest}"))
}

/// What an attempt is called while it is removed.
pub(crate) fn outgoing(name: &str) -> String {
    rest(name).map_or_else(|| name.to_owned(), |rest| format!("{OUTGOING}{rest}"))
}

/// Whether the attempt of this name is being removed.
pub(crate) fn is_outgoing(name: &str) -> bool {
    name.starts_with(OUTGOING)
}

fn rest(name: &str) -> Option<&str> {
    name.strip_prefix(INCOMING).or_else(|| name.strip_prefix(OUTGOING))
}

/// Makes sure that what is to be dropped is no volume's image.
pub(crate) fn check(unfinished: &Unfinished) -> Result<(), ImageError> {
    let Unfinished { pool, name, uid: volume } = unfinished;
    if uid(name) == Some(*volume) {
        return Ok(());
    }
    let action = format!("remove unfinished image {pool}/{name}");
    Err(ImageError::Failed { action, source: Box::new(NoDraft) })
}

/// The name of something else was given.
#[derive(Debug, thiserror::Error)]
#[error("that is not the name of an unfinished image of this volume")]
struct NoDraft;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_back() {
        let volume = Uuid::new_v4();
        let draft = name(volume, "t.v.1");
        assert_eq!((uid(&draft), image(&draft)), (Some(volume), Some("t.v.1")));
        let old = outgoing(&draft);
        assert_eq!((uid(&old), image(&old)), (Some(volume), Some("t.v.1")));
        assert!(is_outgoing(&old) && !is_outgoing(&draft));
        assert_eq!((incoming(&old), outgoing(&old)), (draft, old.clone()));
        assert_ne!(name(volume, "t.v"), name(volume, "t.v"));
        for other in ["t.v", ".new.", ".new.x.1", &format!(".new.{volume}"), ".trash"] {
            assert_eq!(uid(other), None, "{other}");
        }
    }

    #[test]
    fn the_longest_name_is_a_file_name_still() {
        let longest = format!("{}.{}", "t".repeat(63), "v".repeat(127));
        assert!(name(Uuid::new_v4(), &longest).len() <= 255);
    }
}
