//! How the words are described in the document of the API: each is a text.

use crate::{Digest, ImageRef, Mac};

/// Describes types that are written as texts: what they are, and an example.
#[macro_export]
macro_rules! text_schemas {
    ($($name:ty: $what:literal, $example:literal;)*) => {$(
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::Type::String)
                    .description(Some($what))
                    .examples([$example])
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    )*};
}

text_schemas! {
    Mac: "Hardware address of a network interface", "52:54:00:12:34:56";
    Digest: "SHA-256", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    ImageRef: "Image with or without its channel", "web:stable";
}
