//! The control plane: REST on a unix socket.
