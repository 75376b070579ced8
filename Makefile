# Every habit of the project. Bare `make` lists the targets; nothing is assumed but make, a shell and Python.
.DEFAULT_GOAL := help
.PHONY: help setup train ablation sweep test lint repro report export ui bench gallery doctor clean

PYTHON ?= python3
# The extras last installed stay, so that `make train` after `make setup EXTRAS=gpu` keeps the GPU's packages.
EXTRAS ?= $(shell cat .venv/.extras 2>/dev/null)
UV_VERSION := 0.13.8
export PRESET ARCHIVE FOLDER PEERS
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONUTF8 := 1
export MLFLOW_DISABLE_TELEMETRY := true
export NO_ALBUMENTATIONS_UPDATE := 1

help: ## list these targets
	@echo "usage: make TARGET [PRESET=NAME] [ARCHIVE=/path/to/archive.zip]"
	@echo "presets: $(sort $(basename $(notdir $(wildcard configs/*.yaml))))"
	@sed -n 's/^\([a-z]*\):.*## /  \1	/p' Makefile | expand -t 12

setup: .venv/.synced ## make .venv with the packages of uv.lock (EXTRAS=gpu for NVIDIA GPUs)
	@scripts/dvc-without-git

train: setup ## all stages: data, training, evaluation, report (PRESET=…, ARCHIVE=…)
	@if [ -n "$$PRESET$$ARCHIVE" ]; then cxr preset $${PRESET:+"$$PRESET"} $${ARCHIVE:+--archive "$$ARCHIVE"}; fi
	@dvc repro report
	@echo "report: reports/report.html; runs: make ui; to predict and serve: make export"

ablation: setup ## what CLAHE, loss, augmentation and weights each change (PRESET=…, ARCHIVE=…; docs/ablation.md)
	@if [ -n "$$PRESET$$ARCHIVE" ]; then cxr preset $${PRESET:+"$$PRESET"} $${ARCHIVE:+--archive "$$ARCHIVE"}; fi
	@cxr ablation

sweep: setup ## search for better parameters: section sweep of params.yaml (PRESET=…, ARCHIVE=…; docs/sweep.md)
	@if [ -n "$$PRESET$$ARCHIVE" ]; then cxr preset $${PRESET:+"$$PRESET"} $${ARCHIVE:+--archive "$$ARCHIVE"}; fi
	@dvc repro preprocess
	@cxr sweep

test: setup ## the test suite
	@python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: setup ## style and types
	@ruff check . && ruff format --check . && mypy

repro: setup ## run what has changed since the last run
	@dvc repro

export: setup ## SavedModel, LiteRT and ONNX of the trained model, running first what they need (docs/export.md)
	@dvc repro export

report: setup ## write the HTML report, running first what it needs
	@dvc repro report

ui: setup ## MLflow's pages on http://127.0.0.1:5000
	@mlflow server --backend-store-uri sqlite:///mlflow.db --default-artifact-root mlruns --host 127.0.0.1 --port 5000

bench: setup ## how fast preprocess is (FOLDER=images, PEERS=python with benchmarks/requirements.txt)
	@python benchmarks/preprocess.py "$${FOLDER:-data/raw}" $${PEERS:+--peers "$$PEERS"}

gallery: setup ## a contact sheet of the simulated films: docs/images/gallery.jpg
	@python benchmarks/gallery.py

doctor: setup ## look at the machine: what works, what is missing
	@cxr doctor

clean: ## remove what the stages made; .venv and MLflow's runs stay
	rm -rf data/raw data/raw.* data/processed data/*.csv data/*.npy models/*.* models/tensorboard models/repeats models/.partial \
	  reports/predictions.csv reports/reference.npz reports/monitor retrained reports/ablation reports/sweep reports/report.html reports/data/quarantine.csv reports/data/audit.csv .dvc/cache .dvc/tmp dvc_plots

ifneq ($(strip $(EXTRAS)),$(strip $(shell cat .venv/.extras 2>/dev/null)))
.venv/.synced: other-extras
.PHONY: other-extras
other-extras:
endif

.venv/.synced: uv.lock pyproject.toml scripts/setup
	@PYTHON="$(PYTHON)" UV_VERSION="$(UV_VERSION)" EXTRAS="$(EXTRAS)" scripts/setup
