//! Logging in where a registry asks for it.

use oci_client::RegistryOperation;
use oci_client::secrets::RegistryAuth;

use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::challenge::Bearer;
use super::{Host, Login};
use crate::oci::registry::{RegistryError, login};

/// The longest answer with a token.
const MAX_TOKEN: u64 = 1 << 20;

/// The answer of who gives tokens: they have one of two names.
#[derive(Deserialize)]
struct Given {
    token: Option<String>,
    access_token: Option<String>,
}

impl Host {
    pub(super) async fn log_in(
        &self,
        repository: &str,
        operation: RegistryOperation,
    ) -> Result<(), RegistryError> {
        let auth = self.auth(repository).await?;
        let login = match self.obtain(repository, auth, operation).await {
            Ok(Some(login)) => login,
            Err(refused @ RegistryError::SentOn { .. }) => return Err(refused),
            Ok(None) => return Err(self.login_refused(repository).await),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, host = self.name, "login failed");
                return Err(self.login_refused(repository).await);
            }
        };
        self.tokens.lock().await.insert(repository.to_owned(), login);
        Ok(())
    }

    /// Finds out what kind of login the registry wants, and makes it. Nothing where there is none for it.
    async fn obtain(
        &self,
        repository: &str,
        auth: RegistryAuth,
        operation: RegistryOperation,
    ) -> Result<Option<Login>, RegistryError> {
        let known = match auth {
            RegistryAuth::Bearer(token) => return Ok(Some(Login::Token(token))),
            RegistryAuth::Basic(name, password) => Some((name, password)),
            RegistryAuth::Anonymous => None,
        };
        let scheme = if self.plain { "http" } else { "https" };
        let host = self.parsed(repository).resolve_registry().to_owned();
        let asked = self.sent(self.http.get(format!("{scheme}://{host}/v2/"))).await?;
        let Some(Bearer { realm, service }) = Bearer::of(asked.headers()) else {
            return Ok(known.map(|(name, password)| Login::Basic(name, password)));
        };
        let what = format!("a token for {repository}");
        let broken = |problem: String| RegistryError::Broken {
            host: self.name.clone(),
            what: what.clone(),
            problem,
        };
        // Who answers there gets our password, and the registry chose it.
        let mut url = Url::parse(&realm).map_err(|error| broken(error.to_string()))?;
        self.may_go_to(&url)?;
        let may = match operation {
            RegistryOperation::Pull => "pull",
            RegistryOperation::Push => "pull,push",
        };
        url.query_pairs_mut().append_pair("scope", &format!("repository:{repository}:{may}"));
        if let Some(service) = &service {
            url.query_pairs_mut().append_pair("service", service);
        }
        let mut request = self.http.get(url);
        if let Some((name, password)) = &known {
            request = request.basic_auth(name, Some(password));
        }
        let answer = self.sent(request).await?;
        if answer.status() != StatusCode::OK {
            return Ok(None);
        }
        let bytes = self.collect(answer, &what, MAX_TOKEN).await?;
        let given: Given =
            serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        Ok(given.token.or(given.access_token).map(Login::Token))
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
