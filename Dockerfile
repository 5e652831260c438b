# docker build -t gateway .        docs/install.md says how to run it.
# PYTHON_IMAGE may be any image with Python 3.11 or newer and pip; EXTRAS=postgresql for a queue in PostgreSQL.
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ARG EXTRAS=
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN python3 -m venv --without-pip /opt/gateway \
    && python3 -m pip --python /opt/gateway install --no-cache-dir ".${EXTRAS:+[${EXTRAS}]}" \
    && /opt/gateway/bin/gateway version

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="gateway" \
      org.opencontainers.image.description="Self-hosted SMTP relay that bridges legacy apps and devices to HTTP mail APIs" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/gateway /opt/gateway
# Inside a container loopback reaches nobody, so this file binds every address. Mount your own over it.
RUN mkdir -p /etc/gateway \
    && printf '%s\n' \
        'listeners:' \
        '  local: {bind: "0.0.0.0:8025", tls: none, auth: optional}' \
        > /etc/gateway/config.yaml \
    && mkdir -m 0711 /var/lib/gateway \
    && chown 65532:65532 /var/lib/gateway
ENV PATH=/opt/gateway/bin:${PATH} \
    STATE_DIRECTORY=/var/lib/gateway
USER 65532:65532
WORKDIR /var/lib/gateway
VOLUME /var/lib/gateway
EXPOSE 8025 8026
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["gateway", "healthcheck"]
ENTRYPOINT ["gateway"]
CMD ["serve"]
