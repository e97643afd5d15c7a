//! The calls of `creel.v1.Images`.

use creel_proto::v1 as wire;
use creel_proto::v1::images_server;
use tonic::{Request, Response, Status};

use super::blocking;
use crate::image::{Image, ImageError, ImageStore, ImageSummary};
use crate::text::one_line;

/// Of what is wrong with an image.
const MAX_PROBLEM_CHARS: usize = 1000;

#[derive(Debug)]
pub(in crate::api) struct ImagesService {
    images: ImageStore,
}

impl ImagesService {
    pub(in crate::api) fn new(images: ImageStore) -> Self {
        Self { images }
    }
}

#[tonic::async_trait]
impl images_server::Images for ImagesService {
    async fn list(
        &self,
        _request: Request<wire::ListImagesRequest>,
    ) -> Result<Response<wire::ListImagesResponse>, Status> {
        let images = self.images.clone();
        // Reads a few files an image, and sums up what they take.
        let listed = blocking(move || images.list()).await?;
        let listed =
            listed.map_err(|error| Status::failed_precondition(crate::error::with_causes(&error)))?;
        let images = listed.into_iter().map(|listed| {
            let ImageSummary { name, size_bytes, image, .. } = listed;
            match image {
                Ok(Image { spec, .. }) => wire::Image {
                    name,
                    arch: spec.arch.to_string(),
                    memory_mib: spec.memory_mib,
                    vcpus: spec.vcpus,
                    size_bytes,
                    problem: String::new(),
                },
                Err(error) => {
                    let problem = one_line(&crate::error::with_causes(&error), MAX_PROBLEM_CHARS);
                    wire::Image { name, size_bytes, problem, ..wire::Image::default() }
                }
            }
        });
        Ok(Response::new(wire::ListImagesResponse { images: images.collect() }))
    }

    async fn inspect(
        &self,
        request: Request<wire::InspectImageRequest>,
    ) -> Result<Response<wire::InspectImageResponse>, Status> {
        let wire::InspectImageRequest { name } = request.into_inner();
        let images = self.images.clone();
        let resolved = blocking(move || {
            let image = images.resolve(&name)?;
            let spec = std::fs::read(&image.spec_path);
            Ok::<_, ImageError>((image, spec))
        });
        let (image, spec_json) = resolved.await?.map_err(|error| match &error {
            ImageError::Unknown { .. } => Status::not_found(error.to_string()),
            ImageError::InvalidName { .. } => Status::invalid_argument(error.to_string()),
            _ => Status::failed_precondition(crate::error::with_causes(&error)),
        })?;
        let spec_json = spec_json.map_err(|error| {
            Status::failed_precondition(format!("failed to read `{}`: {error}", image.spec_path.display()))
        })?;
        Ok(Response::new(wire::InspectImageResponse {
            name: image.name,
            shell: image.spec.shell,
            base_config_hash: image.spec.base_config_hash,
            arch: image.spec.arch.to_string(),
            memory_mib: image.spec.memory_mib,
            vcpus: image.spec.vcpus,
            // It was parsed, so it is text.
            spec_json: String::from_utf8_lossy(&spec_json).into_owned(),
        }))
    }
}
