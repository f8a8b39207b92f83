//! What is not as it should be: `doctor_*`.

use volapi::doctor::Doctor;
use volapi::routes;

use crate::call::Call;
use crate::client::Client;
use crate::error::ClientError;

impl Client {
    /// Compares records, images, claims and the trash. Takes time in proportion to the number of images.
    pub async fn doctor_get(&self) -> Result<Doctor, ClientError> {
        self.read(Call::get("doctor_get", "records and images", routes::DOCTOR)).await
    }
}
