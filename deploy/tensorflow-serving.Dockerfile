# TensorFlow Serving, including the shipped model: gRPC on 8500, REST on 8501.
# In the folder of the repository:
# docker build -f deploy/tensorflow-serving.Dockerfile -t clouds-tf-serving:0.2.0 .

FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m pip install --no-cache-dir "$(ls /wheels/*.whl)[serving]"
RUN clouds-tf export \
    --weights=models/clouds_unet.safetensors \
    --postprocessing=models/postprocessing.json \
    --export_dir=/models/clouds

FROM tensorflow/serving:2.15.1
COPY --from=build /models/clouds /models/clouds
COPY deploy/monitoring.config /models/monitoring.config
USER 10001:10001
EXPOSE 8500 8501
# Without --enable_batching, so that a bad image cannot make other requests fail.
ENTRYPOINT ["tensorflow_model_server", "--port=8500", "--rest_api_port=8501"]
CMD ["--model_config_file=/models/clouds/models.config", \
    "--monitoring_config_file=/models/monitoring.config"]
