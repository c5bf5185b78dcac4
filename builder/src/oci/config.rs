use std::collections::BTreeMap;

/// What an image says of how it wants to run (OCI image configuration, `config`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments, or the program where there is no entry point.
    pub cmd: Vec<String>,
    /// Environment, as `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// User, as `uid`, `name` or `user:group`.
    pub user: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}
