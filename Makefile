# Everything needs Python, make and git alone; the first call makes .venv and installs into it.
PYTHON = python3
VENV = .venv
# Where the digits come from, SOURCE=embedded, mnist or a folder, and some notebooks only, such as
# NB="02_labels 03_head". Both as they were typed: make would read a $ in them as its own.
export SOURCE_GIVEN := $(if $(filter command,$(origin SOURCE)),$(value SOURCE))
export NB_GIVEN := $(if $(filter command,$(origin NB)),$(value NB))
# How many notebooks or tests run at a time; one per processor, and at most 4, unless you say so.
JOBS =
# Further words for pytest, such as ARGS="-k clean", or for JupyterLab.
ARGS =
# An index with other builds of torch, such as https://download.pytorch.org/whl/cpu
TORCH_INDEX =

PY = $(VENV)/bin/python
PIP = $(PY) -m pip --disable-pip-version-check
READY = $(VENV)/.ready

.DEFAULT_GOAL = help
.PHONY: help course pages save test bench verdicts ablation lab export format speed readme weights draw constraints clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

course: $(READY) ## run every notebook and make pages of them in _build/course (SOURCE=embedded|mnist|FOLDER)
	@$(PY) -m tools.course --source "$${SOURCE_GIVEN:-embedded}" $(if $(JOBS),--jobs $(JOBS)) $$NB_GIVEN

pages: $(READY) ## make the pages from the outputs that are saved in nbs/, in a few seconds
	@$(PY) -m tools.course --no-run

save: $(READY) ## run notebooks on MNIST and save their outputs in nbs/ (NB="02_labels 03_head" for some only)
	@$(PY) -m tools.course --save --source "$${SOURCE_GIVEN:-mnist}" $(if $(JOBS),--jobs $(JOBS)) $$NB_GIVEN

test: $(READY) ## test everything, on the embedded digits
	@$(PY) -m pytest -v -p no:cacheprovider -n $(or $(JOBS),auto) --dist worksteal $(ARGS) tests

bench: $(READY) ## measure speed, all sides in one run, on MNIST where it is on disk (SOURCE=..., ARGS="--quick" or "--only a,c")
	@$(PY) -m benchmarks $${SOURCE_GIVEN:+--source "$$SOURCE_GIVEN"} $(ARGS)

verdicts: $(READY) ## train the recipe for three seeds and write its table to benchmarks/verdicts.json (SOURCE=..., ARGS="--none FOLDER")
	@$(PY) -m benchmarks.verdicts $${SOURCE_GIVEN:+--source "$$SOURCE_GIVEN"} $(ARGS)

ablation: $(READY) ## measure what each ingredient of the recipe buys, and write benchmarks/ablation.json (20 minutes on MNIST)
	@$(PY) -m benchmarks.ablation $${SOURCE_GIVEN:+--source "$$SOURCE_GIVEN"} $(ARGS)

lab: $(READY) ## open JupyterLab in nbs/ (SOURCE=... for other digits than the notebooks would choose)
	@if [ -d "$$SOURCE_GIVEN" ]; then SOURCE_GIVEN=$$(cd -- "$$SOURCE_GIVEN" && pwd); fi; \
	if [ -n "$$SOURCE_GIVEN" ]; then export MULTILABEL_MNIST_SOURCE="$$SOURCE_GIVEN"; fi; \
	cd nbs && JUPYTER_PREFER_ENV_PATH=1 PYTHONWARNINGS='ignore:`torch.jit.script` is deprecated:FutureWarning' \
	../$(PY) -m jupyterlab $(ARGS)

export: $(READY) ## write the modules of multilabel_mnist/ from the notebooks
	@$(PY) -m tools.export
	@touch $(READY) # nbdev-export writes pyproject.toml anew, unchanged

format: $(READY) ## format notebooks and Python files, fix what ruff can fix, then make export
	@$(VENV)/bin/ruff check --quiet --fix-only --extend-exclude multilabel_mnist .
	@$(VENV)/bin/ruff format --quiet .
	@$(MAKE) --no-print-directory export

speed: $(READY) ## put the table of the last `make bench` on MNIST into benchmarks/README.md
	@$(PY) -m tools.speed

readme: $(READY) ## write README.md from nbs/index.ipynb
	@$(PY) -m tools.readme

weights: $(READY) ## train the networks that the package ships, on MNIST, and write them with their card (10 minutes)
	@$(PY) -m tools.weights

draw: $(READY) ## write nbs/draw.html, the page to draw on, from the networks that the package ships
	@$(PY) -m tools.draw

constraints: $(READY) ## write constraints.txt from what is installed in .venv
	@{ sed -n '/^#/p' constraints.txt; \
	$(PIP) freeze --all --exclude-editable | sed 's/+.*//' | grep -Eiv '^(pip|wheel|triton)==|^(nvidia|cuda)-'; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) _build build dist *.egg-info .pytest_cache .ruff_cache .hypothesis nbs/.ipynb_checkpoints nbs/reference/.ipynb_checkpoints
	find multilabel_mnist nbs tests tools benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): settings.ini constraints.txt setup.py pyproject.toml
	@$(PYTHON) tools/check_python.py
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV), which takes some minutes the first time: 1. torch and torchvision, the large part"
	@$(PIP) install --quiet -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch torchvision
	@echo "2. fastai, JupyterLab and the other requirements; 3. this package, in editable form"
	@$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
