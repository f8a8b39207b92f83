//! What is not as it should be: `doctor_*`.

use hyper::Method;
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

    /// Compares them and mends what is proven; asked again, it goes on. Takes twice the time.
    pub async fn doctor_fix(&self) -> Result<Doctor, ClientError> {
        let call = Call::new("doctor_fix", "records and images", Method::POST, routes::DOCTOR);
        self.read(call).await
    }
}
