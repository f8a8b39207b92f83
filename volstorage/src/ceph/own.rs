//! How the cluster knows this client: its addresses, as those who watch or lock an image have them.

use super::cluster::Cluster;
use super::directory::header;
use super::error::{CephError, Operation};
use super::image::Image;

/// The addresses in what `rados_getaddrs` prints, such as `[v2:10.0.0.1:0/12,v1:10.0.0.1:0/12]`, each once.
fn plain(printed: &str) -> Vec<String> {
    let mut plain: Vec<String> = Vec::new();
    for address in printed.split(['[', ']', ',']).map(str::trim) {
        let address =
            address.strip_prefix("v1:").or(address.strip_prefix("v2:")).unwrap_or(address);
        if address.contains('/') && !plain.iter().any(|known| known == address) {
            plain.push(address.to_owned());
        }
    }
    plain
}

impl Cluster {
    /// The addresses of this client (`ip:port/nonce`), in the form that watchers and owners of locks have.
    ///
    /// # Errors
    /// When the call fails.
    pub fn clients(&self) -> Result<Vec<String>, CephError> {
        self.addresses().map(|printed| plain(&printed))
    }
}

impl Image {
    /// Asks an OSD about the image's header, which changes nothing.
    ///
    /// # Errors
    /// [`CephError::is_shutdown`] when this client was fenced off.
    pub fn reach(&self) -> Result<(), CephError> {
        let header = header(&self.id()?)?;
        self.pool().has_object(&header, Operation::Reach).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_those_of_watchers() {
        assert_eq!(plain("127.0.0.1:0/318"), ["127.0.0.1:0/318"]);
        assert_eq!(plain("v1:10.77.0.1:0/42"), ["10.77.0.1:0/42"]);
        assert_eq!(plain("[v2:10.77.0.1:0/42,v1:10.77.0.1:0/42]"), ["10.77.0.1:0/42"]);
        assert_eq!(plain("-"), [""; 0]);
    }
}
