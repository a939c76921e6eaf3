# One image, two programs: docker run IMAGE train, docker run IMAGE serve (image/README.md; `make image` builds it with whatever engine is here).
#
#   runtime   Debian and the shared libraries of ours
#   build     … and compilers: the programs, in /image
#   test      … and the unit tests, all run
#   cpu       runtime and the programs: what is kept
#
# No ENTRYPOINT: the platform runs `train` or `serve`, SDK v3's local mode runs CMD, its cleaning up runs `chmod`.

ARG BASE=docker.io/library/debian:bookworm-slim@sha256:96e378d7e6531ac9a15ad505478fcc2e69f371b10f5cdf87857c4b8188404716

FROM ${BASE} AS runtime
RUN apt-get update \
	&& apt-get install -y --no-install-recommends libarchive13 libcjson1 libgloo0 libmicrohttpd12 libprotobuf-c1 libpthreadpool0 \
	&& rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/aux-cache /var/log/apt /var/log/dpkg.log /var/log/alternatives.log

FROM runtime AS build
RUN apt-get update && apt-get install -y --no-install-recommends make
WORKDIR /src
COPY Makefile cuda.mk ./
RUN make deps
COPY . .
ARG COMMIT=unknown
RUN make -j"$(nproc)" COMMIT="$COMMIT" && make install COMMIT="$COMMIT" DESTDIR=/image

FROM build AS test
RUN make test-unit

FROM runtime AS cpu
COPY --from=build /image/ /
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true \
	com.amazonaws.sagemaker.capabilities.multi-models=true \
	org.opencontainers.image.title=smelt \
	org.opencontainers.image.description="ResNet34 on CIFAR-100 for Amazon SageMaker: train and serve"
CMD ["train"]
