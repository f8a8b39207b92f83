//! The names of images that are being made: `.new.<uid>.<attempt>.<name>`.
//!
//! One rule for all drivers. No volume's image can have such a name, because a tenant's name begins
//! with a letter or a digit. It ends with the name that the image will have, so that whoever finds
//! what an attempt has left knows where to look for the rest.

use uuid::Uuid;

use crate::image::{ImageError, Unfinished};

const PREFIX: &str = ".new.";

/// A name for a new attempt to make the image of that volume, to be called `image`.
pub(crate) fn name(uid: Uuid, image: &str) -> String {
    let attempt = Uuid::new_v4().simple().to_string();
    format!("{PREFIX}{uid}.{}.{image}", &attempt[..8])
}

/// The volume for which an image of this name was being made.
pub(crate) fn uid(name: &str) -> Option<Uuid> {
    let (uid, attempt) = name.strip_prefix(PREFIX)?.split_once('.')?;
    if attempt.is_empty() { None } else { uid.parse().ok() }
}

/// The name that the image was to have.
pub(crate) fn image(name: &str) -> Option<&str> {
    let (_, attempt) = name.strip_prefix(PREFIX)?.split_once('.')?;
    attempt.split_once('.').map(|(_, image)| image)
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
