//! Images that were there before the volume whose own they become.

use uuid::Uuid;
use volcore::filesystem::FilesystemKind;
use volcore::volume::ImageName;

/// An image that may become a volume's: nobody has it open, and hosts could use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoptable {
    /// Its id in the pool.
    pub id: String,
    /// The volume that it was made for; `None` where the suite has not made it.
    pub uid: Option<Uuid>,
    /// Its size in bytes.
    pub size: u64,
    /// What is on it.
    pub filesystem: FilesystemKind,
}

/// Whose an image becomes, and whose it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The image.
    pub image: ImageName,
    /// Its id in the pool, as it was found.
    pub image_id: String,
    /// The volume that it becomes the image of.
    pub uid: Uuid,
    /// The volume that it was made for; `None` where it carried none.
    pub former: Option<Uuid>,
}
