//! A fault-injecting FUSE passthrough filesystem: one daemon, many views of one volume.
