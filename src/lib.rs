//! walbanger: is SQLite safe on this shared volume, and if not, which broken promise is to blame?
