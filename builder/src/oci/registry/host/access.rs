//! Logging in where a registry asks for it.

use oci_client::RegistryOperation;
use oci_client::secrets::RegistryAuth;

use super::{Host, Login};
use crate::oci::registry::{RegistryError, login};

impl Host {
    pub(super) async fn log_in(
        &self,
        repository: &str,
        operation: RegistryOperation,
    ) -> Result<(), RegistryError> {
        let auth = self.auth(repository).await?;
        let token = match self.client.auth(&self.parsed(repository), &auth, operation).await {
            Ok(token) => token,
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    host = self.name,
                    "login failed"
                );
                return Err(self.login_refused(repository).await);
            }
        };
        let login = match (token, auth) {
            (Some(token), _) | (None, RegistryAuth::Bearer(token)) => Login::Token(token),
            (None, RegistryAuth::Basic(name, password)) => Login::Basic(name, password),
            (None, RegistryAuth::Anonymous) => return Err(self.login_refused(repository).await),
        };
        self.tokens.lock().await.insert(repository.to_owned(), login);
        Ok(())
    }

    /// Finds who to log in as. Helpers are programs that may take a while.
    async fn auth(&self, repository: &str) -> Result<RegistryAuth, RegistryError> {
        let (settings, name, repository) =
            (self.settings.clone(), self.name.clone(), repository.to_owned());
        let find = move || login::find(settings.as_ref(), &name, &repository);
        tokio::task::spawn_blocking(find).await.unwrap_or(Ok(RegistryAuth::Anonymous))
    }

    pub(super) async fn login_refused(&self, repository: &str) -> RegistryError {
        let who = match self.auth(repository).await {
            Ok(RegistryAuth::Anonymous) => "and none is known",
            _ => "and does not accept the one that is known",
        };
        RegistryError::Login { host: self.name.clone(), what: repository.to_owned(), who }
    }
}
