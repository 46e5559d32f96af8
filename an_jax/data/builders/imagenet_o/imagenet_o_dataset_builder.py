"""ImageNet-O (Hendrycks et al., CVPR 2021)."""

from collections.abc import Iterator
from typing import ClassVar

import tensorflow_datasets as tfds
from etils import epath

from an_jax.data.builders import class_folders
from an_jax.data.sets.downloads import DOWNLOADS

_PAGE = DOWNLOADS["imagenet-o"].page
_WHERE = f"https://people.eecs.berkeley.edu/~hendrycks/imagenet-o.tar (see {_PAGE})"


class Builder(tfds.core.GeneratorBasedBuilder):
    """2,000 images of none of the 1000 classes, in folders of 200 classes they are mistaken for."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put imagenet-o.tar into manual_dir: {_WHERE}."

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=class_folders.features(image=tfds.features.Image(encoding_format="jpeg")),
            supervised_keys=("image", "label"),
            homepage=_PAGE,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        archive = class_folders.find_archive(dl_manager.manual_dir, ["imagenet-o.tar"], _WHERE)
        return {"test": self._generate_examples(archive, dl_manager)}

    def _generate_examples(
        self, archive: epath.Path, dl_manager: tfds.download.DownloadManager
    ) -> Iterator[tuple[str, dict]]:
        return class_folders.generate_examples("image", archive, "imagenet-o", dl_manager)
