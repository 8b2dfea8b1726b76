//! Random input finds no panic and no success.

use http::Method;
use proptest::prelude::*;

use crate::support::{send, server};

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bodies_paths_and_parameters_are_client_errors(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        tail in "[a-z0-9%/.:_-]{0,40}",
        query in "[a-zA-Z=&,!()%. +<>-]{0,40}",
        kind in 0..5_usize,
        method in 0..5_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let types = [
            "application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/json-patch+json",
            "application/apply-patch+yaml",
        ];
        let method = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE][method].clone();
        let mut body = body;
        if kind == 2 {
            body.splice(0..0, b"k8s\0".iter().copied());
        }
        let code = runtime.block_on(async {
            let server = server().await;
            let path = format!("/api/v1/namespaces/default/configmaps/{tail}?{query}");
            let code = match path.parse::<http::Uri>() {
                Ok(_) => send(&server, method.clone(), &path, types[kind], body).await.code,
                Err(_) => 400,
            };
            server.shutdown().await;
            code
        });
        prop_assert!((400..500).contains(&code) || (code == 200 && matches!(method, Method::GET | Method::DELETE)), "{}", code);
    }
}
