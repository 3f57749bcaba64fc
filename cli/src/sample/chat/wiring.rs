//! What protoc would have generated: a closure as the handler of one method, for each of tonic's four kinds.

use std::future::Future;

use tonic::server::{ClientStreamingService, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};

/// The handler of one method of one request.
pub struct Method<F>(pub F);

impl<F, Fut, Received, Reply> UnaryService<Received> for Method<F>
where
    F: FnMut(Request<Received>) -> Fut,
    Fut: Future<Output = Result<Response<Reply>, Status>>,
{
    type Response = Reply;
    type Future = Fut;

    fn call(&mut self, request: Request<Received>) -> Fut {
        (self.0)(request)
    }
}

impl<F, Fut, Received, Reply, Replies> ServerStreamingService<Received> for Method<F>
where
    F: FnMut(Request<Received>) -> Fut,
    Fut: Future<Output = Result<Response<Replies>, Status>>,
    Replies: tokio_stream::Stream<Item = Result<Reply, Status>>,
{
    type Response = Reply;
    type ResponseStream = Replies;
    type Future = Fut;

    fn call(&mut self, request: Request<Received>) -> Fut {
        (self.0)(request)
    }
}

impl<F, Fut, Received, Reply> ClientStreamingService<Received> for Method<F>
where
    F: FnMut(Request<Streaming<Received>>) -> Fut,
    Fut: Future<Output = Result<Response<Reply>, Status>>,
{
    type Response = Reply;
    type Future = Fut;

    fn call(&mut self, request: Request<Streaming<Received>>) -> Fut {
        (self.0)(request)
    }
}

impl<F, Fut, Received, Reply, Replies> StreamingService<Received> for Method<F>
where
    F: FnMut(Request<Streaming<Received>>) -> Fut,
    Fut: Future<Output = Result<Response<Replies>, Status>>,
    Replies: tokio_stream::Stream<Item = Result<Reply, Status>>,
{
    type Response = Reply;
    type ResponseStream = Replies;
    type Future = Fut;

    fn call(&mut self, request: Request<Streaming<Received>>) -> Fut {
        (self.0)(request)
    }
}
