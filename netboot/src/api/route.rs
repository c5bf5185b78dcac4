//! One route: its method and path, who may use it, what goes in and out, and its handler. The router, the rules of
//! access and the document of the API are all made from the same list of these.

use std::sync::Arc;

use axum::handler::Handler;
use axum::http::StatusCode;
use axum::routing::{MethodFilter, MethodRouter, on};
use serde_json::{Value, json};
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, ToSchema};

use super::Control;
use super::access::Access;
use super::change::{Dry, Preview};
use super::extract::MOST_BYTES;

/// A type in the document: how it is written there, and the types that it needs.
#[derive(Clone)]
pub(super) struct Shape {
    pub(super) media: &'static str,
    pub(super) schema: Value,
    pub(super) named: Vec<(String, RefOr<Schema>)>,
}

impl Shape {
    fn of<T: ToSchema>() -> Self {
        let mut named = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut named);
        let schema = json!({"$ref": format!("#/components/schemas/{}", T::name())});
        Self { media: "application/json", schema, named }
    }

    fn list_of<T: ToSchema>() -> Self {
        let one = Self::of::<T>();
        Self { schema: json!({"type": "array", "items": one.schema}), ..one }
    }
}

/// One route.
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) summary: &'static str,
    pub(super) params: Vec<Value>,
    pub(super) body: Option<Shape>,
    pub(super) most_bytes: usize,
    pub(super) status: StatusCode,
    pub(super) answer: Option<Shape>,
    /// What it answers to a dry run, where that is something else.
    pub(super) preview: Option<Shape>,
    /// Whether it looks at `If-Match`.
    pub(super) condition: bool,
    /// Whether its answer has an `ETag`.
    pub(super) tagged: bool,
    /// Whether its answer has something secret in it, which is told once and kept nowhere.
    pub(super) is_secret: bool,
    /// Other headers that it looks at, and what they say.
    pub(super) headers: Vec<(&'static str, &'static str)>,
    /// How it fails beside what all routes of its kind have in common.
    pub(super) others: Vec<StatusCode>,
    pub(super) handler: MethodRouter<Arc<Control>>,
}

impl Route {
    fn new<H, T>(
        (method, filter): (&'static str, MethodFilter),
        path: &'static str,
        access: Access,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Control>>,
        T: 'static,
    {
        Self {
            method,
            path,
            access,
            summary,
            params: Vec::new(),
            body: None,
            most_bytes: MOST_BYTES,
            status: StatusCode::OK,
            answer: None,
            preview: None,
            condition: false,
            tagged: false,
            is_secret: false,
            headers: Vec::new(),
            others: Vec::new(),
            handler: on(filter, handler),
        }
    }

    /// Returns the names of what may stand behind the path.
    pub(super) fn queries(&self) -> impl Iterator<Item = &str> {
        self.params.iter().filter_map(|param| param.get("name").and_then(Value::as_str))
    }

    /// It takes these words behind the path.
    pub(super) fn query<P: IntoParams>(mut self) -> Self {
        let params = P::into_params(|| Some(ParameterIn::Query));
        self.params.extend(params.iter().filter_map(|param| serde_json::to_value(param).ok()));
        self
    }

    /// It takes `dry_run`, and then only answers what would be.
    pub(super) fn tried(self) -> Self {
        Self { preview: Some(Shape::of::<Preview>()), ..self.query::<Dry>() }
    }

    /// It takes a body.
    pub(super) fn takes<T: ToSchema>(mut self) -> Self {
        self.body = Some(Shape::of::<T>());
        self
    }

    /// It takes a list of these.
    pub(super) fn takes_list<T: ToSchema>(mut self) -> Self {
        self.body = Some(Shape::list_of::<T>());
        self
    }

    /// It takes a part of a type as a JSON merge patch.
    pub(super) fn merges<T: ToSchema>(mut self) -> Self {
        let whole = Shape::of::<T>();
        let schema =
            json!({"type": "object", "description": "The fields that change; `null` removes one"});
        self.body = Some(Shape { media: "application/merge-patch+json", schema, ..whole });
        self
    }

    /// Its body may be longer than others.
    pub(super) const fn up_to(mut self, bytes: usize) -> Self {
        self.most_bytes = bytes;
        self
    }

    /// It answers with this.
    pub(super) fn gives<T: ToSchema>(mut self) -> Self {
        self.answer = Some(Shape::of::<T>());
        self
    }

    /// It answers with a list of these.
    pub(super) fn lists<T: ToSchema>(mut self) -> Self {
        self.answer = Some(Shape::list_of::<T>());
        self
    }

    /// It answers with something that has no type of ours.
    pub(super) fn answers(mut self, media: &'static str, schema: Value) -> Self {
        self.answer = Some(Shape { media, schema, named: Vec::new() });
        self
    }

    /// A type that its answer is made of, beside those that its schema names.
    pub(super) fn names<T: ToSchema>(mut self) -> Self {
        if let Some(answer) = &mut self.answer {
            answer.named.extend(Shape::of::<T>().named);
        }
        self
    }

    /// It counts only where what it is about is what `If-Match` says.
    pub(super) const fn conditional(mut self) -> Self {
        self.condition = true;
        self
    }

    /// Its answer has the revision of what it shows as `ETag`.
    pub(super) const fn tagged(mut self) -> Self {
        self.tagged = true;
        self
    }

    /// Its answer has something secret in it.
    pub(super) const fn secretly(mut self) -> Self {
        self.is_secret = true;
        self
    }

    /// It looks at a header.
    pub(super) fn header(mut self, name: &'static str, what: &'static str) -> Self {
        self.headers.push((name, what));
        self
    }

    /// It can fail in this way too.
    pub(super) fn or(mut self, status: StatusCode) -> Self {
        self.others.push(status);
        self
    }

    /// The status of its answer when all went well.
    pub(super) const fn with(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident, $filter:ident;)*) => {$(
        $(#[$doc])*
        pub(super) fn $name<H, T>(
            path: &'static str,
            access: Access,
            summary: &'static str,
            handler: H,
        ) -> Route
        where
            H: Handler<T, Arc<Control>>,
            T: 'static,
        {
            Route::new((stringify!($name), MethodFilter::$filter), path, access, summary, handler)
        }
    )*};
}

methods! {
    /// A route that only reads; it answers HEAD too.
    get, GET;
    /// A route that makes something.
    post, POST;
    /// A route that replaces something.
    put, PUT;
    /// A route that changes a part of something.
    patch, PATCH;
    /// A route that removes something.
    delete, DELETE;
}
