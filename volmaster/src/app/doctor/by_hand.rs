//! What people can do to images by hand, as commands: those differ by where the images are.

use std::path::PathBuf;

use volcore::name::VolumeId;
use volstorage::image::{ImageSource, Stocked};

/// Where the images of a pool are.
pub(super) enum Place {
    /// In Ceph.
    Rbd,
    /// In a folder of this machine.
    Folder(PathBuf),
}

impl Place {
    /// Where an image of the pool is found.
    pub(super) fn of(source: ImageSource) -> Place {
        match source {
            ImageSource::Rbd { .. } => Place::Rbd,
            ImageSource::File { mut path } => {
                path.pop();
                Place::Folder(path)
            }
        }
    }

    /// Takes it out of the trash, under a name.
    pub(super) fn restore(&self, thrown: &Stocked, name: &str) -> String {
        let Stocked { pool, id, .. } = thrown;
        match self {
            Place::Rbd => format!("`rbd trash restore {pool}/{id} --image {name}`"),
            Place::Folder(path) => {
                let path = path.display();
                format!("`mv -n {path}/.trash/{id} {path}/{name}`")
            }
        }
    }

    /// Removes it from the trash.
    pub(super) fn remove(&self, thrown: &Stocked) -> String {
        let Stocked { pool, id, .. } = thrown;
        match self {
            Place::Rbd => format!("`rbd trash rm {pool}/{id}`"),
            Place::Folder(path) => format!("`rm {}/.trash/{id}`", path.display()),
        }
    }

    /// Gives it another name.
    pub(super) fn rename(&self, image: &Stocked, name: &str) -> String {
        let Stocked { pool, name: was, .. } = image;
        match self {
            Place::Rbd => format!("`rbd rename {pool}/{was} {pool}/{name}`"),
            Place::Folder(path) => {
                let path = path.display();
                format!("`mv -n {path}/{was} {path}/{name}`")
            }
        }
    }

    /// Takes the image of a volume from those who have it open, such as `/dev/loop7`.
    pub(super) fn close(&self, volume: &VolumeId, watchers: &[String]) -> String {
        match self {
            Place::Rbd => format!(
                "a client that was killed counts as open for 30 s; after that, unmap it there, or `volcli mount \
                 force-remove {volume}` cuts it off"
            ),
            Place::Folder(_) => {
                format!("unmount it, then `losetup -d {}`", watchers.join(" "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_by_place() {
        let (pool, id) = ("ssd".parse().unwrap(), "10ab".to_owned());
        let image =
            Stocked { pool, id, name: "t.old".to_owned(), uid: None, size: None, limits: None };
        let rbd = ImageSource::Rbd { pool: "ssd".to_owned(), image: "x".to_owned() };
        let file = ImageSource::File { path: "/images/ssd/x".into() };
        let told = [rbd, file].map(|source| {
            let (place, volume) = (Place::of(source), "t/v".parse().unwrap());
            let close = place.close(&volume, &["/dev/loop7".to_owned()]);
            let (restore, rename) = (place.restore(&image, "t.v"), place.rename(&image, "t.v"));
            [restore, place.remove(&image), rename, close].join("\n")
        });
        insta::assert_snapshot!(told.join("\n"), @r"
        `rbd trash restore ssd/10ab --image t.v`
        `rbd trash rm ssd/10ab`
        `rbd rename ssd/t.old ssd/t.v`
        a client that was killed counts as open for 30 s; after that, unmap it there, or `volcli mount force-remove t/v` cuts it off
        `mv -n /images/ssd/.trash/10ab /images/ssd/t.v`
        `rm /images/ssd/.trash/10ab`
        `mv -n /images/ssd/t.old /images/ssd/t.v`
        unmount it, then `losetup -d /dev/loop7`
        ");
    }
}
