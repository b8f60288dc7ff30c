# Everything from a machine with Python >= 3.10 and make: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := outputs/demo
EMOJI := data/emoji-raw
VENDORS := twitter google

# Tests of numbers that are rounded (costs are counted), and kernels that do so otherwise than those that `make test` has
# (engine.portable): the oldest, and those that a processor chooses for itself.
NUMBERS := tests/test_combinations.py tests/test_roles.py tests/test_shared_parameters.py tests/test_committed.py \
	tests/backbones tests/engine tests/evaluators tests/features tests/metrics tests/stats tests/tasks tests/weights \
	tests/results/test_differences.py tests/results/test_tables.py tests/results/test_compare.py
# Of these files, what no kernel rounds: configurations, whole numbers, graphs, names in files, processes that are stopped.
EXACT := every_run_of or closed_forms or test_each_method or test_describe or test_files or test_forms or test_states or \
	test_clip_architecture or test_workers or test_lap or test_meeting
IS_PORTABLE := from vltune.engine.kernels import is_intel_with_avx2 as found; raise SystemExit(not found())
OLDEST := ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE DNNL_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Prescott
OWN := MKL_CBWR=AUTO

# So many at a time: `make test WORKERS=8`.
WORKERS ?= 2
PYTEST = $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo emoji test test-kernels lint format bench lock clean
help:
	@echo "make demo    train eight tuning methods on the toy world and print the table (3 minutes on two cores)"
	@echo "make emoji   fetch drawings of two vendors with npm, train on one's, test on the other's (10 minutes on two cores)"
	@echo "make test    all tests (half an hour on two cores, longer where SLURM is installed; WORKERS=8 on eight)"
	@echo "make test-kernels   the tests of numbers under other kernels than those of make test"
	@echo "make lint    ruff: lint and format;  make format mends what it can"
	@echo "make bench   timings beside transformers with PEFT"
	@echo "make lock    pin the versions in requirements.lock anew"

setup: $(READY)
$(READY): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python run.py -m +sweep=mini_vqa seed=0 results_dir=$(DEMO)
	$(BIN)/vltune report demo --results-dir $(DEMO)
	@echo "These runs beside the committed ones:"
	@$(BIN)/vltune compare $(DEMO) results --brief

emoji: setup $(VENDORS:%=$(EMOJI)/emoji-datasource-%)
	$(BIN)/vltune prepare emoji --raw $(EMOJI) --out data/emoji
	OMP_NUM_THREADS=1 $(BIN)/python run.py -m +sweep=emoji results_dir=results/emoji
	$(BIN)/vltune report emoji

$(EMOJI)/emoji-datasource-%:
	@command -v npm > /dev/null || { echo "make emoji: npm is not here; install Node.js, or fetch the packages as docs/data.md says" >&2; exit 1; }
	mkdir -p $@.partial
	npm pack --silent --pack-destination $@.partial emoji-datasource-$*@16.0.0
	tar -xzf $@.partial/*.tgz -C $@.partial package/LICENSE package/emoji.json package/img/$*/64
	rm $@.partial/*.tgz
	mv $@.partial $@

test: setup
	OMP_NUM_THREADS=1 $(PYTEST)

test-kernels: setup
	$(OLDEST) OMP_NUM_THREADS=1 $(PYTEST) $(NUMBERS) -k "not ($(EXACT))"
	@if $(BIN)/python -c "$(IS_PORTABLE)"; then set -x; $(OWN) $(PYTEST) $(NUMBERS) -k "not ($(EXACT))"; \
	else echo "This processor's own kernels are those of make test."; fi

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python bench/train_step.py
	$(BIN)/python bench/train_step.py --backbone clip
	$(BIN)/python bench/train_step.py --backbone meter --batch 2 --rounds 2
	$(BIN)/python bench/train_step.py --backbone meter --batch 2 --memory
	$(BIN)/python bench/portable.py
	$(BIN)/python bench/attention.py
	$(BIN)/python bench/retrieval.py
	$(BIN)/python bench/feature_cache.py
	$(BIN)/python bench/reader.py
	$(BIN)/python bench/prepare.py
	$(BIN)/python bench/full_size.py
	$(BIN)/python bench/cli_startup.py

lock: setup
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --extra dev --no-header --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) outputs
