# One image, two programs: docker run IMAGE train, docker run IMAGE serve (image/README.md; `make image` builds it with whatever engine is here).
#
#   runtime      Debian and the shared libraries that the programs need
#   build        … and compilers: the programs, in /image
#   test         … and the unit tests, all run
#   cpu          runtime and the programs: smelt:cpu
#   build-cuda   build, NVIDIA's libraries and the GPU backend (FLAVOUR 13, or 12 for a V100)
#   cuda         cpu and those: smelt, smelt:cu12
#
# No ENTRYPOINT: the platform runs `train` or `serve`, SDK v3's local mode runs CMD, its cleaning up runs `chmod`.

ARG BASE=docker.io/library/debian:bookworm-slim@sha256:96e378d7e6531ac9a15ad505478fcc2e69f371b10f5cdf87857c4b8188404716

FROM ${BASE} AS runtime
RUN --mount=type=bind,source=image,target=/mnt /mnt/install run

FROM runtime AS build
RUN --mount=type=bind,source=image,target=/mnt /mnt/install build
WORKDIR /src
COPY . .
ARG COMMIT=unknown
RUN make -j"$(nproc)" COMMIT="$COMMIT" && make install COMMIT="$COMMIT" DESTDIR=/image

FROM build AS test
ARG COMMIT=unknown
RUN make test-unit COMMIT="$COMMIT"

FROM runtime AS cpu
COPY --from=build /image/ /
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=bind,source=image,target=/mnt /mnt/bill /usr/local/share/doc/smelt
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true \
	com.amazonaws.sagemaker.capabilities.multi-models=true \
	org.opencontainers.image.title=smelt \
	org.opencontainers.image.description="ResNet34 on CIFAR-100 for Amazon SageMaker: train and serve"
CMD ["train"]

FROM build AS build-cuda
RUN --mount=type=bind,source=image,target=/mnt /mnt/install cuda
# How pip is configured where the image is built.
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_DEFAULT_TIMEOUT
ARG FLAVOUR=13
ARG COMMIT=unknown
RUN --mount=type=secret,id=certificates,target=/run/certificates \
	if [ -s /run/certificates ]; then export PIP_CERT=/run/certificates; fi \
	&& make -j"$(nproc)" install-cuda FLAVOUR="$FLAVOUR" COMMIT="$COMMIT" DESTDIR=/image && rm -rf build

FROM cpu AS cuda
COPY --from=build-cuda /image/ /
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=bind,source=image,target=/mnt /mnt/bill /usr/local/share/doc/smelt
