# The static binary in an empty image: scripts/build-static, then docker build (make image).
FROM scratch

LABEL org.opencontainers.image.title="walbanger" \
      org.opencontainers.image.description="Is SQLite (WAL) safe on this shared volume?" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"

COPY target/static/walbanger /walbanger

# Where a user looks for the database when he names no other.
ENV WALBANGER_PATH=/db/walbanger.db
WORKDIR /db

# A replica answers to nobody: its output says all there is to say.
HEALTHCHECK NONE
STOPSIGNAL SIGTERM

ENTRYPOINT ["/walbanger"]
CMD ["run"]
