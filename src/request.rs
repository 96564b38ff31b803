//! What is a Kubernetes request?
