"""Raw files of each data set, drawn at random, and what a slow and simple reading of them expects of `prepare`."""

from collections import Counter, defaultdict

from fuzzing import (
    JUNK,
    TEXTS,
    Expected,
    entry,
    is_id,
    is_name,
    is_text,
    json_file,
    json_lines,
    mostly,
    of,
    read_json,
    read_lines,
    says,
)
from hypothesis import strategies as st

from vltune.data.snli_ve.prepare import LABELS
from vltune.metrics.vqa import normalise, soft_score

# VQAv2

SUBTYPES = {"train": "train2014", "val": "val2014", "test": "test2015", "test-dev": "test2015"}
QUESTIONS = {
    split: f"v2_OpenEnded_mscoco_{name}_questions.json"
    for split, name in (SUBTYPES | {"test-dev": "test-dev2015"}).items()
}
ANNOTATIONS = {name: f"v2_mscoco_{name}_annotations.json" for name in ("train2014", "val2014", "test2015")}
ANSWERS = ["red", "Red", "two", "2", "the red!", "", "no"]
IMAGES = 4  # of each folder; there is no fifth


@st.composite
def vqav2(draw):
    files = {}
    for split, name in QUESTIONS.items():
        keys = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(1, IMAGES + 1)), max_size=5))
        sure = {"question_id": 100, "image_id": 1}
        questions = [sure | {"question": f"what is {split}?"}] * draw(mostly(st.just(1), st.just(0), 40))
        questions += [draw(_question(*key)) for key in keys]
        files[name] = draw(json_file("questions", questions))
        annotations = [sure | {"answers": [{"answer": "red"}] * 3, "multiple_choice_answer": "red"}]
        annotations += [draw(_annotation(*key)) for key in draw(st.permutations(keys))]
        if split in ("train", "val") or (split == "test" and draw(st.booleans())):
            files[ANNOTATIONS[SUBTYPES[split]]] = draw(json_file("annotations", annotations))
    return files


def _question(id, image):
    keys = {"question_id": mostly(st.just(id), share=30), "image_id": mostly(st.just(image), share=30)}
    return entry(**keys, question=mostly(TEXTS | st.just("what?")))


def _annotation(id, image):
    human = st.fixed_dictionaries({"answer": mostly(st.sampled_from(ANSWERS), share=40)})
    return entry(
        question_id=mostly(st.just(id), share=30),
        image_id=mostly(st.just(image), share=30),
        answers=mostly(st.lists(human, min_size=1, max_size=4), share=30),
        multiple_choice_answer=mostly(st.sampled_from(ANSWERS), share=30),
    )


def expect_vqav2(files):
    expected, known, common = Expected(), defaultdict(dict), Counter()
    for subtype, name in ANNOTATIONS.items():
        found = read_json(files[name], "annotations") if name in files else []
        if found is None:
            return Expected(refused=True)
        for number, each in enumerate(found, 1):
            id, image, humans, answer = (
                of(each, key) for key in ("question_id", "image_id", "answers", "multiple_choice_answer")
            )
            first = is_id(id) and id not in known[subtype]
            good = first and (is_id(image) or "image_id" not in each) and isinstance(humans, list) and humans
            good = good and all(isinstance(human, dict) and is_text(human.get("answer")) for human in humans)
            good = good and (subtype == "test2015" or is_text(answer))
            if first:
                known[subtype][id] = (image, [human["answer"] for human in humans]) if good else None
            if not good:
                expected.bad.add(f"{name} entry {number}")
            elif subtype != "test2015":
                common[normalise(answer)] += 1
    if not common:
        return Expected(refused=True)
    for split, name in QUESTIONS.items():
        rows, kept, seen, asked = {}, [], set(), 0
        if (found := read_json(files[name], "questions")) is None:
            return Expected(refused=True)
        annotated = known[SUBTYPES[split]]
        for number, each in enumerate(found, 1):
            id, image, text = (of(each, key) for key in ("question_id", "image_id", "question"))
            good = is_id(id) and is_id(image) and id not in seen
            seen |= {id} if is_id(id) and is_id(image) else set()
            asked += good and id in annotated
            annotation = annotated.get(id, (None, [])) if good else None
            good = good and says(text) and (id in annotated or (not annotated and split.startswith("test")))
            good = good and (annotation is None or annotation[0] in (None, image))
            if not good:
                expected.bad.add(f"{name} entry {number}")
            elif annotation is not None:
                counts = Counter(annotation[1])
                scores = {word: soft_score(n) for word, n in counts.items() if word in common}
                rows.setdefault(image, [])
                if scores or split.startswith("test"):
                    rows[image].append((id, text, scores))
                else:
                    expected.dropped["dropped_questions"][split] += 1
        if split != "test-dev":
            expected.dropped["dropped_annotations"][split] += len(annotated) - asked
        for image, held in sorted(rows.items()):
            file = f"{SUBTYPES[split]}/COCO_{SUBTYPES[split]}_{image:012d}.jpg"
            if not held:
                expected.dropped["dropped_images"][split] += 1
            elif not 1 <= image <= IMAGES:
                expected.missing.add(file)
            else:
                kept.append((file, [(text, id, scores, bool(annotated)) for id, text, scores in held]))
        expected.rows[split] = kept
    expected.refused = not all(expected.rows.values())
    return expected


# NLVR2

PAIRS = ("train", "dev", "test1")
TRUTH = ("True", "False")


@st.composite
def nlvr2(draw):
    def statements(split, least):
        names = st.tuples(
            st.sampled_from([split, split, "dev", "test1"]), st.integers(0, 1), st.integers(0, 1), st.integers(0, 1)
        )
        identifier = mostly(
            names.map(lambda name: "{}-{}-{}-{}".format(*name)),
            JUNK | st.sampled_from(["a-b", "../x-0-0-0", "dev-0-", "--1"]),
        )
        keys = {
            "identifier": identifier,
            "sentence": mostly(TEXTS | st.just("a dog")),
            "label": mostly(st.sampled_from(TRUTH)),
        }
        if split == "train":
            keys["directory"] = mostly(st.just(0), JUNK | st.sampled_from(["0", 1, "..", "7"]), 6)
        sure = [
            {"identifier": f"{split}-0-0-9", "sentence": f"a cat of {split}", "label": "True", "directory": 0}
        ] * least
        return sure + draw(st.lists(entry(**keys), max_size=8))

    files = {
        f"data/{split}.json": draw(json_lines(statements(split, draw(mostly(st.just(1), st.just(0), 30)))))
        for split in PAIRS
    }
    if draw(st.booleans()):
        files["data/balanced/balanced_dev.json"] = draw(
            json_lines([{"identifier": "dev-0-0-9"}, *statements("dev", 0)[:3]])
        )
    return files


def expect_nlvr2(files):
    expected, known, directories, order = Expected(), {}, {}, defaultdict(list)
    for split in PAIRS:
        name, rows, seen = f"data/{split}.json", {}, set()
        if (found := read_lines(files[name])) is None:
            return Expected(refused=True)
        for number, each in found:
            identifier, sentence, label, directory = (
                of(each, key) for key in ("identifier", "sentence", "label", "directory")
            )
            parts = identifier.rsplit("-", 2) if is_name(identifier) else []
            named = len(parts) == 3 and all(parts)
            good = named and identifier not in seen and says(sentence) and label in TRUTH
            seen |= {identifier} if named else set()
            pair = "-".join(parts[:2])
            if split == "train":
                directory = str(directory) if is_id(directory) else directory
                good = good and is_name(directory) and directories.setdefault(pair, directory) == directory
            if good:
                rows.setdefault(pair, []).append((sentence, label, identifier))
                known[split, identifier] = {"sentence": sentence, "label": label}
            else:
                expected.bad.add(f"{name} line {number}")
        for pair, held in rows.items():
            folder = f"images/train/{directories[pair]}" if split == "train" else split
            there = {f"{split}-{a}-{b}" for a in range(2) for b in range(2)}
            if pair in there and (split != "train" or directories[pair] == "0"):
                said = [(sentence, label, pair) for sentence, label, _ in held]
                expected.rows[split].append((f"{folder}/{pair}-img0.png", said))
                order[split] += [identifier for *_, identifier in held]
            else:
                expected.missing |= {f"{folder}/{pair}-img{side}.png" for side in range(2)}
    if not all(expected.rows[split] for split in PAIRS):
        return Expected(refused=True)
    name = "data/balanced/balanced_dev.json"
    if name in files:
        if (found := read_lines(files[name])) is None:
            return Expected(refused=True)
        seen, numbers = set(), []
        for number, each in found:
            identifier = of(each, "identifier")
            stated = known.get(("dev", identifier if is_text(identifier) else None))
            if stated is None or identifier in seen:
                expected.bad.add(f"{name} line {number}")
                continue
            seen.add(identifier)
            if all(each.get(key, said) == said for key, said in stated.items()):
                numbers += [order["dev"].index(identifier)] if identifier in order["dev"] else []
            else:
                expected.bad.add(f"{name} line {number}")
        expected.rows["balanced_dev"] = sorted(numbers)
    return expected


# Karpathy's: Flickr30K has one folder of images, COCO two

NAMES = ["a.jpg", "b.jpg", "./a.jpg", "sub/c.jpg", "sub//c.jpg"]
KARPATHY = {
    "f30k": ("dataset_flickr30k.json", ("train", "val", "test"), ["flickr30k-images"]),
    "coco": ("dataset_coco.json", ("train", "restval", "val", "test"), ["train2014", "val2014"]),
}
NEEDED = ("train", "val", "test")


def karpathy_files(kind):
    *_, folders = KARPATHY[kind]
    some = {f"{folder}/{name}" for folder in folders for name in (NAMES[0], NAMES[1], NAMES[3])}
    return some | {f"{folders[-1]}/{name}.jpg" for name in NEEDED}


@st.composite
def karpathy(draw, kind):
    file, splits, folders = KARPATHY[kind]
    odd_names = JUNK | st.sampled_from(["/a.jpg", "../val2014/a.jpg", ".", "gone.jpg", "a.jpg/.."])
    image = {
        "filename": mostly(st.sampled_from(NAMES), odd_names),
        "split": mostly(st.sampled_from(splits), JUNK | st.just("restval")),
        "sentences": mostly(st.lists(entry(raw=mostly(TEXTS | st.just("a dog"))), max_size=3)),
    }
    if kind == "coco":
        places = st.sampled_from([*folders, "./val2014", "val2014/"])
        image["filepath"] = mostly(places, JUNK | st.sampled_from(["/tmp", "..", ""]))
    sure = [
        {"filename": f"{name}.jpg", "filepath": folders[-1], "split": name, "sentences": [{"raw": f"one of {name}"}]}
        for name in NEEDED
        if draw(mostly(st.just(True), st.just(False), 40))
    ]
    return {file: draw(json_file("images", sure + draw(st.lists(entry(**image), max_size=10))))}


def expect_karpathy(kind, files):
    expected, seen, (name, splits, folders) = Expected(), set(), KARPATHY[kind]
    if (found := read_json(files[name], "images")) is None:
        return Expected(refused=True)
    for number, each in enumerate(found, 1):
        folder = folders[0] if len(folders) == 1 else of(each, "filepath")
        places, split, sentences = [folder, of(each, "filename")], of(each, "split"), of(each, "sentences")
        parts = [_parts(place) for place in places]
        good = all(parts) and isinstance(split, str) and split in splits
        file = "/".join(parts[0] + parts[1])
        good, known = good and (split, file) not in seen, good
        seen |= {(split, file)} if known else set()
        good = good and isinstance(sentences, list)
        good = good and all(isinstance(one, dict) and is_text(one.get("raw")) for one in sentences)
        if not good:
            expected.bad.add(f"{name} entry {number}")
            continue
        captions = [one["raw"] for one in sentences if says(one["raw"])]
        expected.dropped["dropped_captions"][split] += len(sentences) - len(captions)
        if not captions:
            expected.dropped["dropped_images"][split] += 1
        elif file in karpathy_files(kind):
            expected.rows[split].append((file, [(caption,) for caption in captions]))
        else:
            expected.missing.add(file)
    expected.refused = not all(expected.rows[split] for split in NEEDED)
    return expected


def _parts(place):
    """Of a place that lies inside its folder; none for one that does not, or is none."""
    if not is_text(place) or place[:1] == "/" or "\0" in place or ".." in place.split("/"):
        return []
    return [part for part in place.split("/") if part not in ("", ".")]


# SNLI-VE

SENTENCES = ("train", "dev", "test")


@st.composite
def snli_ve(draw):
    files = {}
    for split in SENTENCES:
        line = entry(
            Flickr30K_ID=mostly(
                st.sampled_from([f"{split}1", f"{split}2", 3]), JUNK | st.sampled_from(["gone", "../1", "3"])
            ),
            sentence1=mostly(TEXTS | st.just("a dog")),
            sentence2=mostly(TEXTS | st.just("a cat")),
            gold_label=mostly(st.sampled_from([*LABELS, "-"])),
        )
        paired = st.tuples(line, st.none() | st.sampled_from("abc") | JUNK)
        lines = [
            each if key is None or not isinstance(each, dict) else each | {"pairID": key}
            for each, key in draw(st.lists(paired, max_size=7))
        ]
        sure = {"Flickr30K_ID": f"{split}1", "sentence1": "", "sentence2": f"of {split}", "gold_label": LABELS[0]}
        files[f"snli_ve_{split}.jsonl"] = draw(json_lines([sure] * draw(mostly(st.just(1), st.just(0), 30)) + lines))
    return files


def expect_snli_ve(files):
    expected = Expected()
    for split in SENTENCES:
        name, rows, seen = f"snli_ve_{split}.jsonl", {}, set()
        if (found := read_lines(files[name])) is None:
            return Expected(refused=True)
        for number, each in found:
            keys = ("Flickr30K_ID", "sentence1", "sentence2", "gold_label", "pairID")
            image, first, second, label, pair = (of(each, key) for key in keys)
            good = is_text(label) and label in (*LABELS, "-")
            if good and "pairID" in each:
                good = is_text(pair) and pair not in seen
                seen |= {pair} if good else set()
            if good and label == "-":
                expected.dropped["dropped_sentences"][split] += 1
                continue
            image = str(image) if is_id(image) else image
            if good and is_text(first) and says(second) and is_name(image):
                rows.setdefault(image, []).append((second.strip(), LABELS.index(label)))
            else:
                expected.bad.add(f"{name} line {number}")
        for image, held in rows.items():
            if image in (f"{split}1", f"{split}2", "3"):
                expected.rows[split].append((f"flickr30k-images/{image}.jpg", held))
            else:
                expected.missing.add(f"flickr30k-images/{image}.jpg")
    expected.refused = not all(expected.rows[split] for split in SENTENCES)
    return expected
