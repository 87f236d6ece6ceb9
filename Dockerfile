# syntax=docker/dockerfile:1
# The service in one image, for a machine of its own (compose.yaml) or as pods of a Ray cluster (config/kubernetes).
#   docker build -t cosyvoice-serve:cpu .
#   docker build -t cosyvoice-serve:gpu --build-arg DEVICE=gpu .
# Not built yet: there was no Docker where this was written. See docs/operations.md for what was run by hand instead.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS base
ARG DEVICE=cpu
# libnuma1: vLLM on a CPU, else set-up finds it broken. wget: KubeRay's probes. A compiler on GPUs only: Triton compiles the
# launchers of its kernels when vLLM starts. Debian keeps no old versions that could be named.
# hadolint ignore=DL3008
RUN apt-get update \
    && if [ "${DEVICE}" = gpu ]; then set -- gcc libc6-dev; fi \
    && apt-get install --yes --no-install-recommends libnuma1 wget "$@" \
    && rm -rf /var/lib/apt/lists/*

FROM base AS build
ARG DEVICE=cpu
WORKDIR /app
# What set-up looks at and no more, so that a change of code does not install everything anew.
COPY pyproject.toml README.md LICENSE ./
COPY tools/ tools/
COPY cosyvoice_core/__init__.py cosyvoice_core/
COPY deployments/__init__.py deployments/
COPY loadtest/__init__.py loadtest/
# The same steps as `make setup`: they find the torch build that fits, install, repair and check.
RUN --mount=type=cache,target=/root/.cache/pip \
    COSYVOICE_DEVICE=${DEVICE} python -m tools.setup_env --venv /app/.venv --without-dev

FROM base AS service
RUN useradd --uid 10001 --create-home cosyvoice \
    && install --directory --owner=cosyvoice --group=cosyvoice /models
WORKDIR /app
COPY --from=build /app/.venv/ .venv/
COPY . .
# KubeRay starts pods with a login shell, which knows no PATH of ours.
RUN ln -s /app/.venv/bin/ray /usr/local/bin/ray
ENV PATH=/app/.venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    HOME=/tmp \
    HF_HOME=/models/huggingface \
    COSYVOICE_VOICES=/models/voices \
    XDG_CACHE_HOME=/tmp/cache \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Code and environment belong to root: the service cannot change itself.
USER 10001:10001
EXPOSE 8000
# The first start may have to fetch a model.
HEALTHCHECK --interval=10s --timeout=10s --start-period=30m --retries=6 \
    CMD ["wget", "--quiet", "--output-document=/dev/null", "http://127.0.0.1:8000/health"]
CMD ["python", "-m", "deployments", "serve", "--host", "0.0.0.0"]
