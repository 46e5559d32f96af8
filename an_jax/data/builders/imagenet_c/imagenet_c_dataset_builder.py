"""ImageNet-C (Hendrycks and Dietterich, ICLR 2019), from the authors' files."""

from collections.abc import Iterator
from typing import ClassVar

import tensorflow_datasets as tfds
from etils import epath

from an_jax.data.builders import class_folders
from an_jax.data.sets.downloads import DOWNLOADS
from an_jax.data.sets.image_sets import CORRUPTION_ARCHIVES, SEVERITIES

_PAGE = DOWNLOADS["imagenet-c"].page
_ARCHIVE_OF = {name: archive for archive, names in CORRUPTION_ARCHIVES.items() for name in names}
_CONTENTS = "; ".join(
    f"{archive} ({', '.join(names)})" for archive, names in CORRUPTION_ARCHIVES.items()
)


class Builder(tfds.core.GeneratorBasedBuilder):
    """The 50,000 validation images with one corruption at one severity."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=f"{name}_{severity}", description=f"{name}, {severity} of 5")
        for name in _ARCHIVE_OF
        for severity in SEVERITIES
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put the archive of the corruption, from {_PAGE}, into manual_dir: "
        f"{_CONTENTS}. ImageNet-P's archives have the same names: keep them in another folder."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=class_folders.features(image=tfds.features.Image(encoding_format="jpeg")),
            supervised_keys=("image", "label"),
            homepage="https://github.com/hendrycks/robustness",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        corruption, severity = self.builder_config.name.rsplit("_", 1)
        names = [_ARCHIVE_OF[corruption]]
        archive = class_folders.find_archive(dl_manager.manual_dir, names, _PAGE)
        return {"test": self._generate_examples(archive, f"{corruption}/{severity}", dl_manager)}

    def _generate_examples(
        self, archive: epath.Path, folder: str, dl_manager: tfds.download.DownloadManager
    ) -> Iterator[tuple[str, dict]]:
        return class_folders.generate_examples("image", archive, folder, dl_manager)
