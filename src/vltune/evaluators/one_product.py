"""The score of every image with every caption of a split, by two towers: each is embedded once, and all are compared."""

from __future__ import annotations

import torch

from vltune.data.collate import pad_tokens
from vltune.evaluators.all_pairs import Pairs, check_folds
from vltune.evaluators.evaluator import Evaluator


class OneProduct(Evaluator):
    """The task's `rows` of the whole matrix; an image that cannot be read has -inf with every caption.

    Where a method's texts follow from the image they are embedded anew for each."""

    whole_splits = True

    def check(self) -> None:
        check_folds(self.session)

    def predict(self, split: str, dataset: Pairs) -> list[dict]:
        texts = [dataset.token_ids(number) for number in range(len(dataset.captions))]
        found = self.together(split, self.scores(split, dataset, texts))
        if not self.session.fabric.is_global_zero:
            return []
        matrix = torch.full((len(dataset.images), len(texts)), -torch.inf)
        for number, scores in found:
            matrix[number] = scores
        return self.session.model.task.rows(matrix, dataset.owner, range(len(matrix)), range(len(texts)))

    def scores(self, split: str, dataset: Pairs, texts: list[list[int]]) -> list[list[tuple[int, torch.Tensor]]]:
        """Of each of this process's batches: the number of each image, and its score with every text."""
        session, found, embedded = self.session, [], None
        fabric, model = session.fabric, session.model
        ids = fabric.to_device(pad_tokens(texts, session.data.collate.pad_id)[0])
        with self.batches(split, dataset.images) as batches:
            for batch in batches:
                found.append([])
                if batch["ids"]:
                    with fabric.autocast():
                        image = model.backbone.embed_image(session.to_device(batch))
                        if (of_all := embedded) is None:
                            of_all = model.backbone.embed_text(model.backbone.in_room(ids, image), image)
                        embedded = of_all if of_all.dim() == 2 else None  # (texts, dim), not (images, texts, dim)
                        scores = model.backbone.compare(image, of_all)
                    self.check_numbers(split, scores)
                    found[-1] = [*zip(batch["ids"], scores.float().cpu(), strict=True)]
        return found
