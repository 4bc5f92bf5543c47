# A CPU image with the newer stack and all programs: docker build -t tf-pixpro . ; docker run tf-pixpro pretrain --help
FROM python:3.12-slim
WORKDIR /opt/tf-pixpro
COPY setup.py pyproject.toml README.md LICENSE ./
COPY constraints constraints
COPY tf_evonorm tf_evonorm
COPY tf_pixpro tf_pixpro
COPY experiments experiments
COPY tf_pixpro_programs tf_pixpro_programs
RUN pip install --no-cache-dir -c constraints/py312.txt setuptools ".[experiments,postgresql]"
WORKDIR /data
ENV TF_CPP_MIN_LOG_LEVEL=3
ENTRYPOINT ["tf-pixpro"]
