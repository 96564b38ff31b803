//! What does a storm look like? A modelled apiserver and its clients, over real connections.
