//! Which operation is at which path and method.

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Path, RawQuery, Request, State, rejection::PathRejection},
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use tracing::error;
use uuid::Uuid;

use super::{
    errors::ApiError,
    json,
    query::{self, Query},
    shapes::{self, Configuration, Page, TagsOf},
};
use crate::{
    access::Subject,
    control::plane::{ControlError, ControlPlane, LONGEST_PAGE, ListFilter},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

const NOT_FOUND: &str = "The resource you requested does not exist.";

/// The operations on mappings and their tags. Everything else below the paths of AWS's API is
/// answered as unknown there.
pub fn router(plane: ControlPlane) -> Router {
    let mappings = get(list).post(create).fallback(wrong_method);
    let mapping = get(read).put(update).delete(delete).fallback(wrong_method);
    let tags = get(tags).post(tag).delete(untag).fallback(wrong_method);
    Router::new()
        .route("/2015-03-31/event-source-mappings", mappings.clone())
        .route("/2015-03-31/event-source-mappings/", mappings)
        .route("/2015-03-31/event-source-mappings/{uuid}", mapping.clone())
        .route("/2015-03-31/event-source-mappings/{uuid}/", mapping)
        .route("/2017-03-31/tags/{*resource}", tags)
        .route("/2015-03-31/{*other}", any(unknown))
        .route("/2017-03-31/{*other}", any(unknown))
        .layer(middleware::from_fn(request_id))
        .with_state(plane)
}

async fn create(State(plane): State<ControlPlane>, RawQuery(query): RawQuery, body: Bytes) -> Answer {
    Query::new(query.as_deref()).end()?;
    let (spec, tags) = shapes::create(json::members(&body)?)?;
    let view = plane.create(spec, tags).await?;
    let subject = Extension(Subject(view.uuid.to_string()));
    Ok((subject, accepted(view.into())).into_response())
}

async fn read(State(plane): State<ControlPlane>, uuid: Segment, RawQuery(query): RawQuery) -> Answer {
    Query::new(query.as_deref()).end()?;
    let view = plane.get(mapping_uuid(uuid)?).await?;
    Ok(Json(Configuration::from(view)).into_response())
}

async fn list(State(plane): State<ControlPlane>, RawQuery(query): RawQuery) -> Answer {
    let mut query = Query::new(query.as_deref());
    let event_source = query.one("EventSourceArn", &shapes::ARN);
    let function_name = query.one("FunctionName", &shapes::FUNCTION_NAME);
    let marker = query.one("Marker", &shapes::MARKER);
    let most = query.one("MaxItems", &shapes::MAX_ITEMS);
    query.end()?;
    let function_name = function_name.map(|name| name.parse()).transpose();
    let function_name = function_name.map_err(|error: crate::config::NoFunctionName| {
        ApiError::InvalidParameterValue(format!("FunctionName: {error}"))
    })?;
    // An empty one is how some clients ask for the first page.
    let marker = marker.filter(|marker| !marker.is_empty());
    let after = marker.map(|marker| query::read_marker(&marker)).transpose()?;
    let most = most.and_then(|most| most.parse().ok()).unwrap_or(LONGEST_PAGE);
    let (views, next) = plane.list(&ListFilter { event_source, function_name }, after.as_deref(), most).await?;
    let page = Page {
        next_marker: next.as_deref().map(query::marker),
        event_source_mappings: views.into_iter().map(Configuration::from).collect(),
    };
    Ok(Json(page).into_response())
}

async fn update(State(plane): State<ControlPlane>, uuid: Segment, RawQuery(query): RawQuery, body: Bytes) -> Answer {
    Query::new(query.as_deref()).end()?;
    let uuid = mapping_uuid(uuid)?;
    let members = json::members(&body)?;
    let view = plane.get(uuid).await?;
    let broker = plane.targets().broker(&view.spec.event_source).ok();
    let changes = shapes::update(members, broker.map(|broker| broker.engine))?;
    Ok(accepted(plane.update(uuid, changes).await?.into()))
}

async fn delete(State(plane): State<ControlPlane>, uuid: Segment, RawQuery(query): RawQuery) -> Answer {
    Query::new(query.as_deref()).end()?;
    Ok(accepted(plane.delete(mapping_uuid(uuid)?).await?.into()))
}

async fn tags(State(plane): State<ControlPlane>, resource: Segment, RawQuery(query): RawQuery) -> Answer {
    Query::new(query.as_deref()).end()?;
    let tags = plane.tags(&arn(resource)?).await?;
    Ok(Json(TagsOf { tags }).into_response())
}

async fn tag(State(plane): State<ControlPlane>, resource: Segment, RawQuery(query): RawQuery, body: Bytes) -> Answer {
    Query::new(query.as_deref()).end()?;
    let arn = arn(resource)?;
    let tags = shapes::tags(json::members(&body)?)?;
    plane.tag(&arn, tags).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn untag(State(plane): State<ControlPlane>, resource: Segment, RawQuery(query): RawQuery) -> Answer {
    let mut query = Query::new(query.as_deref());
    let keys = query.all("tagKeys", &shapes::TAG_KEY);
    if keys.is_empty() {
        query.missing("tagKeys");
    }
    query.end()?;
    plane.untag(&arn(resource)?, &keys).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

type Answer = Result<Response, ApiError>;

/// What stands in the path; an error if it is not UTF-8.
type Segment = Result<Path<String>, PathRejection>;

fn accepted(mapping: Configuration) -> Response {
    (StatusCode::ACCEPTED, Json(mapping)).into_response()
}

/// Whatever is no UUID as we write them names no mapping.
fn mapping_uuid(segment: Segment) -> Result<Uuid, ApiError> {
    let not_found = || ApiError::ResourceNotFound(NOT_FOUND.into());
    let Ok(Path(text)) = segment else { return Err(not_found()) };
    let uuid = text.parse::<Uuid>().ok().filter(|uuid| uuid.to_string() == text);
    uuid.ok_or_else(not_found)
}

fn arn(segment: Segment) -> Result<String, ApiError> {
    match segment {
        Ok(Path(arn)) => Ok(arn.strip_suffix('/').map_or(arn.clone(), str::to_owned)),
        Err(_) => Err(ApiError::ResourceNotFound(NOT_FOUND.into())),
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::InvalidParameterValue(words) => Self::InvalidParameterValue(words),
            ControlError::ResourceConflict(words) => Self::ResourceConflict(words),
            ControlError::ResourceNotFound(words) => Self::ResourceNotFound(words),
            ControlError::ResourceInUse(words) => Self::ResourceInUse(words),
            ControlError::Service(words) => {
                error!(cause = words, "an operation of the control API failed");
                Self::Service(words)
            }
        }
    }
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    let words = "is no operation here: this is the API of event source mappings and their tags";
    ApiError::UnknownOperation(format!("{method} {} {words}", cut(uri.path())), None)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let allowed = match uri.path() {
        path if path.starts_with("/2017") => "GET, POST, DELETE",
        path if path.trim_end_matches('/').ends_with("/event-source-mappings") => "GET, POST",
        _ => "GET, PUT, DELETE",
    };
    ApiError::UnknownOperation(format!("{method} is no operation at {}", cut(uri.path())), Some(allowed))
}

/// A path may be as long as a request's head.
fn cut(path: &str) -> &str {
    path.get(..200).unwrap_or(path)
}

/// Every answer has a number by which it can be spoken of.
async fn request_id(request: Request, next: Next) -> Response {
    let id = Uuid::new_v4().to_string();
    let mut response = next.run(request).await;
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().entry(REQUEST_ID).or_insert(id);
    }
    response
}
