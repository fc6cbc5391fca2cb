"""Tables of labels beside images: which columns, images, classes and subsets they mean, what is said, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.source import forget
from beam_cifar.formats.registry import detect_format, get_source
from beam_cifar.planning.paths import surveys_of
from tests.helpers.image_trees import encoded, picture, quickly, write_tree
from tests.helpers.reading import batch_names, cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")

Labels = dict[str, list[tuple[str, str | None, int]]]
"""Rows by subset: id with extension, class name, and the seed of the picture, -1 for none."""


def written(folder: Path, images: list[str], **texts: str | bytes) -> Path:
    """A folder with a picture of its own for each image: the first has seed 0."""
    kinds = {".png": "PNG", ".jpg": "JPEG", ".JPEG": "JPEG", ".PNG": "PNG"}
    files = {name: encoded(picture(seed), kinds[os.path.splitext(name)[1]]) for seed, name in enumerate(images)}
    tables = {name: text if isinstance(text, bytes) else text.encode() for name, text in texts.items()}
    return write_tree(folder, files | tables)


def labels(folder: Path, output: Path, images: int) -> Labels:
    """What is read of PNG files, told apart by their pixels."""
    assert detect_format(str(folder), str(output)) == "image_csv"
    quickly(folder, output, "cifar", save_images=True)
    names = unpickled(output / "batches.meta")["label_names"]
    seeds = {picture(seed).tobytes(): seed for seed in range(images)}
    return {
        subset: [
            (name, None if label is None else names[label], -1 if pixels is None else seeds[pixels])
            for name, label, _, pixels in cifar_rows(output, [subset])
        ]
        for subset in batch_names(output)
    }


KAGGLE = ["train/1.png", "train/2.png", "train/10.png", "test/1.png", "test/2.png"]
TRAIN: Labels = {"train": [("1.png", "frog", 0), ("10.png", "truck", 2), ("2.png", "frog", 1)]}
TEST: Labels = {"test": [("1.png", None, 3), ("2.png", None, 4)]}
FLAT = ["a.png", "b.png"]
CASES: dict[str, tuple[list[str], dict[str, str | bytes], Labels]] = {
    "Kaggle's CIFAR-10, and its form for answers": (
        KAGGLE,
        {"trainLabels.csv": "id,label\n1,frog\n10,truck\n2,frog\n", "sampleSubmission.csv": "id,label\n1,cat\n2,cat\n"},
        TRAIN | TEST,
    ),
    "names with extension": (KAGGLE, {"train.csv": "image_id,label\n1.png,frog\n10.png,truck\n2.png,frog"}, TRAIN | TEST),
    "CR LF, a byte order mark, empty lines": (
        KAGGLE,
        {"train_labels.csv": b"\xef\xbb\xbfId, Label\r\n1,frog\r\n\r\n10,truck\r\n2,frog\r\n"},
        TRAIN | TEST,
    ),
    "semicolons": (KAGGLE, {"train.csv": "id;breed\n1;frog\n10;truck\n2;frog\n"}, TRAIN | TEST),
    "tabs": (KAGGLE, {"train.tsv": "id\tbreed\n1\tfrog\n10\ttruck\n2\tfrog\n"}, TRAIN | TEST),
    "test ids without labels": (
        KAGGLE,
        {"train.csv": "id,label\n1,frog\n10,truck\n2,frog\n", "test.csv": "id\n1\n2\n"},
        TEST | TRAIN,
    ),
    "folders with the word for a split in their name": (
        ["train_images/1.png", "test_images/1.png"],
        {"train.csv": ",image_id,target\n0,1.png,4\n"},
        {"train": [("1.png", "4", 0)], "test": [("1.png", None, 1)]},
    ),
    "images of both in one folder": (
        ["images/Train_0.png", "images/Test_0.png"],
        {"train.csv": "image,category\nTrain_0,x\n", "test.csv": "image\nTest_0\n"},
        {"test": [("Test_0.png", None, 1)], "train": [("Train_0.png", "x", 0)]},
    ),
    "a column of subsets": (
        ["images/1.png", "images/2.png", "images/3.png"],
        {"labels.csv": "path,class,split\nimages/1.png,x,train\nimages/2.png,y,valid\nimages/3.png,x,train\n"},
        {"train": [("images/1.png", "x", 0), ("images/3.png", "x", 2)], "valid": [("images/2.png", "y", 1)]},
    ),
    "a column of subsets says in which folder": (
        ["train/1.png", "test/1.png"],
        {"labels.csv": "id,y,Usage\n1,b,test\n1,a,train\n"},
        {"test": [("1.png", "b", 1)], "train": [("1.png", "a", 0)]},
    ),
    "imagefolder, a table in each split": (
        ["train/a.png", "train/x/b.png", "test/a.png"],
        {"train/metadata.csv": "file_name,label\na.png,0\nx/b.png,2\n", "test/metadata.csv": "file_name,label\na.png,1\n"},
        {"test": [("a.png", "1", 2)], "train": [("a.png", "0", 0), ("x/b.png", "2", 1)]},
    ),
    "imagefolder, one table above the splits": (
        ["train/a.png", "test/a.png"],
        {"metadata.csv": "file_name,label\ntrain/a.png,cat\ntest/a.png,dog\n"},
        {"train": [("train/a.png", "cat", 0)], "test": [("test/a.png", "dog", 1)]},
    ),
    "imagefolder, JSON lines": (
        FLAT,
        {"metadata.jsonl": '{"file_name": "a.png", "label": 1}\n\n{"file_name": "b.png", "label": null}\n'},
        {"default": [("a.png", "1", 0), ("b.png", None, 1)]},
    ),
    "quoted commas": (FLAT, {"labels.csv": 'file,label\na.png,"cat, wild"\n"b.png",dog\n'},
        {"default": [("a.png", "cat, wild", 0), ("b.png", "dog", 1)]},
    ),
    "numbers of classes that are names": (
        FLAT,
        {"labels.csv": "file,label\na.png,010\nb.png,9\n"},
        {"default": [("a.png", "010", 0), ("b.png", "9", 1)]},
    ),
    "labels of pandas with gaps": (
        FLAT, {"labels.csv": "file,label\na.png,3.0\nb.png,\n"}, {"default": [("a.png", "3", 0), ("b.png", None, 1)]}
    ),
    "the column whose values are images": (
        FLAT,
        {"labels.csv": "image_id,id,label\n7,a,x\n8,b,y\n"},
        {"default": [("a.png", "x", 0), ("b.png", "y", 1)]},
    ),
    "no header": (FLAT, {"labels.csv": "a.png,x\nb.png,y\n"}, {"default": [("a.png", "x", 0), ("b.png", "y", 1)]}),
    "a column of images with another name": (
        FLAT, {"labels.csv": "photo,label\na.png,x\nb.png,y\n"}, {"default": [("a.png", "x", 0), ("b.png", "y", 1)]}
    ),
    "paths below the folder of the split": (
        ["train/cat/1.png", "train/dog/1.png", "test/cat/1.png"],
        {"train.csv": "path,label\ncat/1.png,x\ndog/1.png,y\n"},
        {"train": [("cat/1.png", "x", 0), ("dog/1.png", "y", 1)], "test": [("cat/1.png", None, 2)]},
    ),
    "names without underscores, as GTSRB has them": (
        ["Train/0/0.png", "Train/1/0.png", "Test/0.png"],
        {
            "Train.csv": "Width,Height,Roi.X1,ClassId,Path\n8,8,1,0,Train/0/0.png\n8,8,1,1,Train/1/0.png\n",
            "Test.csv": "Width,Height,Roi.X1,ClassId,Path\n8,8,1,1,Test/0.png\n",
        },
        {"Test": [("Test/0.png", "1", 2)], "Train": [("Train/0/0.png", "0", 0), ("Train/1/0.png", "1", 1)]},
    ),
    "ids of images two folders down": (
        ["images/a/1.png", "images/b/2.png"],
        {"labels.csv": "id;label\n1;x\n2;y\n"},
        {"default": [("1.png", "x", 0), ("2.png", "y", 1)]},
    ),
    "the only other column": (FLAT, {"train.csv": ",id_code,level,width\n0,a,3,8\n1,b,1,8\n"},
        {"train": [("a.png", "3", 0), ("b.png", "1", 1)]},
    ),
    "JSON lines that leave out what they have no value for": (
        FLAT,
        {"metadata.jsonl": '{"file_name": "a.png"}\n{"file_name": "b.png", "label": "x"}\n'},
        {"default": [("a.png", None, 0), ("b.png", "x", 1)]},
    ),
    "backslashes": (["x/a.png"], {"labels.csv": "path,label\nx\\a.png,1\n"}, {"default": [("x/a.png", "1", 0)]}),
    "a missing image": (
        ["train/a.png"],
        {"labels.csv": "id,label\na,x\nb,y\n"},
        {"train": [("a.png", "x", 0), ("b", "y", -1)]},
    ),
    "the same row twice": (FLAT, {"labels.csv": "id,label\na,x\nb,y\na,x\n"}, {"default": [("a.png", "x", 0), ("b.png", "y", 1)]}),
    "images with another extension": (
        ["images/a.png", "images/b.png", "images/x/c.v1.png"],
        {"train.csv": "image,label\na.jpg,x\nb.JPEG,y\ngone.jpg,y\nc.v1.bmp,x\n"},
        {"train": [("a.png", "x", 0), ("b.png", "y", 1), ("gone.jpg", "y", -1), ("c.v1.png", "x", 2)]},
    ),
    "no other extension where one image has the right one": (
        FLAT,
        {"labels.csv": "image,label\na.png,x\nb.jpg,y\n"},
        {"default": [("a.png", "x", 0), ("b.jpg", "y", -1)]},
    ),
    "a column for each class": (
        ["images/a.png", "images/b.png", "images/c.png", "images/d.png", "images/e.png"],
        {"train.csv": "image_id,healthy,multiple_diseases,rust\na,0,0,1\nb,1,0,0\nc,0,0,1\n", "test.csv": "image_id\nd\ne\n"},
        {"test": [("d.png", None, 3), ("e.png", None, 4)], "train": [("a.png", "rust", 0), ("b.png", "healthy", 1), ("c.png", "rust", 2)]},
    ),
    "columns of floats for each class, in a folder of another name, and an age": (
        ["ISIC_Input/a.png", "ISIC_Input/b.png", "ISIC_Extra/c.png"],
        {"truth.csv": "image,age,MEL,NV\na,40,1.0,0.0\nb,1,0.0,1.0\nc,0,1.0,0.0\n"},
        {"default": [("a.png", "MEL", 0), ("b.png", "NV", 1), ("c.png", "MEL", 2)]},
    ),
    "columns of true and false for each class, a row without": (
        FLAT,
        {"labels.csv": "id;1;0\na;False;True\nb;;\n"},
        {"default": [("a.png", "0", 0), ("b.png", None, 1)]},
    ),
    "paths of another machine": (
        ["train/a.png", "train/b.png"],
        {"labels.csv": "path,label\nC:\\me\\pets\\train\\a.png,x\nC:\\me\\pets\\train\\b.png,y\n"},
        {"train": [("train/a.png", "x", 0), ("train/b.png", "y", 1)]},
    ),
    "paths above the folder, as in notebooks of Kaggle": (
        ["train/a.png", "train/b.png"],
        {"train.csv": "path,label\n../input/pets/train/a.png,x\n../input/pets/train/b.png,y\n"},
        {"train": [("train/a.png", "x", 0), ("train/b.png", "y", 1)]},
    ),
    "AutoML: no header, the subset first, a bucket": (
        FLAT,
        {"all.csv": "TRAIN,gs://bucket/pets/a.png,x\nTEST,gs://bucket/pets/b.png,y\n"},
        {"TEST": [("b.png", "y", 1)], "TRAIN": [("a.png", "x", 0)]},
    ),
    "fastai's column of rows to validate": (
        ["train/a.png", "train/b.png"],
        {"labels.csv": "name,label,is_valid\ntrain/a.png,x,False\ntrain/b.png,y,True\n"},
        {"train": [("train/a.png", "x", 0)], "valid": [("train/b.png", "y", 1)]},
    ),
    "a column that says which rows are to train": (
        FLAT,
        {"labels.csv": "name,label,is_train\na.png,train,1\nb.png,test,0\n"},
        {"test": [("b.png", "test", 1)], "train": [("a.png", "train", 0)]},
    ),
    "a column of subsets under another name, and ids of classes": (
        ["train/X/1.png", "train/Y/2.png", "test/Y/1.png"],
        {"birds.csv": "class id,filepaths,labels,data set\n0,train/X/1.png,X,train\n1,train/Y/2.png,Y,train\n1,test/Y/1.png,Y,test\n"},
        {"test": [("test/Y/1.png", "Y", 2)], "train": [("train/X/1.png", "X", 0), ("train/Y/2.png", "Y", 1)]},
    ),
    "ids of another kind": (
        ["train_images/p1.png", "train_images/p2.png", "test_images/p3.png"],
        {"labels.csv": "patientId,width,Target\np1,8,0\np2,8,1\n"},
        {"test": [("p3.png", None, 2)], "train": [("p1.png", "0", 0), ("p2.png", "1", 1)]},
    ),
    "Roboflow: a table in each split": (
        ["train/a.png", "train/b.png", "valid/c.png"],
        {"train/_classes.csv": "filename, ant, bee\na.png, 1, 0\nb.png, 0, 1\n", "valid/_classes.csv": "filename, ant, bee\nc.png, 0, 1\n"},
        {"train": [("a.png", "ant", 0), ("b.png", "bee", 1)], "valid": [("c.png", "bee", 2)]},
    ),
    "lists of paths and labels, as Caffe has them": (
        ["images/a.png", "images/my b.png", "images/c.png"],
        {"train.txt": "a.png 0\nmy b.png 1\n", "val.txt": "c.png 1\n", "README.txt": "a.png is a cat\n"},
        {"train": [("a.png", "0", 0), ("my b.png", "1", 1)], "val": [("c.png", "1", 2)]},
    ),
    "lists of MXNet: number, label and path": (
        ["img/1.png", "img/b.png"],
        {"train.lst": "1\t1.000000\timg/1.png\n2\t0.000000\timg/b.png\n"},
        {"train": [("img/1.png", "1", 0), ("img/b.png", "0", 1)]},
    ),
    "lists of paths in folders of classes, as Food-101 has them": (
        ["images/pie/1.png", "images/cake/2.png", "images/pie/3.png"],
        {"meta/train.txt": "pie/1\ncake/2\n", "meta/test.txt": "pie/3\n", "meta/classes.txt": "cake\npie\n"},
        {"test": [("pie/3.png", "pie", 2)], "train": [("pie/1.png", "pie", 0), ("cake/2.png", "cake", 1)]},
    ),
    "lists beside masks, as Oxford-IIIT Pet has them": (
        ["images/cat_1.png", "images/dog_1.png", "annotations/trimaps/cat_1.png"],
        {"annotations/trainval.txt": "cat_1 1 1 1\n", "annotations/test.txt": "dog_1 2 2 1\n", "annotations/list.txt": "#id\ncat_1 1 1 1\n"},
        {"test": [("dog_1.png", "2", 1)], "trainval": [("cat_1.png", "1", 0)]},
    ),
    "numbers that folders give names, as in Places365": (
        ["data/a/bar/1.png", "data/a/alley/1.png", "val/v.png"],
        {"train.txt": "/a/bar/1.png 1\n/a/alley/1.png 0\n", "val.txt": "v.png 1\n"},
        {"train": [("a/bar/1.png", "bar", 0), ("a/alley/1.png", "alley", 1)], "val": [("v.png", "bar", 2)]},
    ),
    "a text file with a header": (FLAT, {"labels.txt": "file,label\na.png,x\nb.png,y\n"},
        {"default": [("a.png", "x", 0), ("b.png", "y", 1)]},
    ),
    "a text file with commas": (FLAT, {"labels.txt": "a.png,x\nb.png,y\n"}, {"default": [("a.png", "x", 0), ("b.png", "y", 1)]}),
    "ids of images in more folders than are looked into": (
        [f"{at % 13:x}/{at}/i{at}.png" for at in range(70)],
        {"train.csv": "id,label\n" + "".join(f"i{at},{at % 3}\n" for at in range(70))},
        {"train": [(f"i{at}.png", str(at % 3), at) for at in range(70)]},
    ),
    "class folders with a table": (
        ["cat/1.png", "dog/1.png"],
        {"labels.csv": "path,label\ncat/1.png,x\ndog/1.png,y\n"},
        {"default": [("cat/1.png", "x", 0), ("dog/1.png", "y", 1)]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_labels_images_and_subsets_are_those_of_the_tables(case: str, tmp_path: Path) -> None:
    images, texts, expected = CASES[case]
    assert labels(written(tmp_path / "in", images, **texts), tmp_path / "out", len(images)) == expected


def test_classes_with_columns_of_their_own_have_their_order_also_without_images(tmp_path: Path) -> None:
    table = "image,MEL,NV,BCC,AK\n" + "".join(f"{name},0,{at},{1 - at},0\n" for at, name in enumerate("ab"))
    found = get_source("image_csv").describe(str(written(tmp_path / "in", FLAT, **{"truth.csv": table})), "")
    assert found.labels.names == ("MEL", "NV", "BCC", "AK")


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["dog", "cat"], ["cat", "dog"]),
        (["2", "0"], ["0", "1", "2"]),
        (["1.0", "0"], ["0", "1"]),
        (["10", "9.5"], ["9.5", "10"]),
        (["-1", "1"], ["0", "1"]),
        (["-2", "1"], ["-2", "1"]),
        (["123456789", "5"], ["5", "123456789"]),
        (["10", "b"], ["10", "b"]),
        (["", ""], []),
    ],
)
def test_texts_are_classes_in_their_order_and_numbers_are_labels(
    values: list[str], classes: list[str], tmp_path: Path
) -> None:
    rows = "".join(f"{name},{value}\n" for name, value in zip("ab", values, strict=True))
    folder = written(tmp_path / "in", FLAT, **{"labels.csv": f"id,label\n{rows}"})
    assert list(get_source("image_csv").describe(str(folder), "").labels.names) == classes


NOTICES: dict[str, tuple[list[str], dict[str, str | bytes], list[str]]] = {
    "columns": (
        FLAT,
        {"labels.csv": "class_name,file_name,label,fine_label,width\nx,a.png,1,2,8\ny,b.png,3,4,8\n"},
        [
            "labels.csv: images are named by column 'file_name', labels are read from 'label'",
            "labels.csv: columns not used, which may be labels too: class_name, fine_label",
        ],
    ),
    "no labels": (
        FLAT,
        {"metadata.csv": "file_name,text\na.png,hello\nb.png,you\n"},
        [
            "metadata.csv: no labels found; images are named by column 'file_name'; columns not used: text; rename one with labels to 'label'"
        ],
    ),
    "a guess": (
        FLAT,
        {"labels.csv": "id_code,severity\na,0\nb,2\n"},
        [
            "labels.csv: images are named by column 'id_code', labels are read from 'severity' (a guess: no other column may "
            "have them)"
        ],
    ),
    "several columns that may have labels": (
        FLAT,
        {"labels.csv": "image,male,young\na,1,1\nb,0,1\n"},
        [
            "labels.csv: no labels found; images are named by column 'image'; columns not used: male, young; rename one "
            "with labels to 'label'"
        ],
    ),
    "two columns of which each row has a 1 in one, which say something else": (
        FLAT,
        {"labels.csv": "image,is_train,is_test\na,1,0\nb,0,1\n"},
        [
            "labels.csv: no labels found; images are named by column 'image'; columns not used: is_train, is_test; rename "
            "one with labels to 'label'"
        ],
    ),
    "a column for each class": (
        FLAT,
        {"labels.csv": "image,MEL,NV\na,1.0,0.0\nb,0.0,1.0\n"},
        [
            "labels.csv: images are named by column 'image', labels are read from the 1 in one of the columns 'MEL', 'NV' "
            "(a guess: no column is named as one of labels)"
        ],
    ),
    "another extension": (
        FLAT,
        {"labels.csv": "id,label\na.jpg,x\nb.jpg,x\n"},
        [
            "labels.csv: no image that it names is there; read with another extension: 2 images, such as 'a.png' for 'a.jpg'",
            "labels.csv: images are named by column 'id', labels are read from 'label'",
        ],
    ),
    "a list": (
        ["x/a.png", "y/b.png"],
        {"train.txt": "x/a.png 5\ny/b.png 7\n"},
        [
            "train.txt: images are named by column 'column 1', labels are read from 'column 2'",
            "train.txt: labels have the names of the folders of their images, such as 'x' for 5",
        ],
    ),
    "paths of another machine": (
        FLAT,
        {"labels.csv": "path,label\n/home/a.png,x\n/home/b.png,y\n"},
        [
            "labels.csv: no image that it names is there; 2 images at the ends of these paths are read, such as 'a.png' for "
            "'/home/a.png'",
            "labels.csv: images are named by column 'path', labels are read from 'label'",
        ],
    ),
    "no header, and several columns that may have labels": (
        FLAT,
        {"labels.csv": "a.png,3,8\nb.png,1,9\n"},
        [
            "labels.csv: no labels found; images are named by column 'column 1'; columns not used: column 2, column 3; add a "
            "first line that names the columns, one of them 'label'"
        ],
    ),
    "several divisions of a set": (
        ["x/a.png", "y/b.png"],
        {"train1.txt": "x/a.png\n", "train2.txt": "y/b.png\n", "test2.txt": "x/a.png\n"},
        [
            "test2.txt: images are named by column 'column 1', labels are read from the names of their folders",
            "train1.txt: images are named by column 'column 1', labels are read from the names of their folders",
            "train2.txt: images are named by column 'column 1', labels are read from the names of their folders",
            "1 image in several subsets, such as 'x/a.png'; if test2.txt, train1.txt, train2.txt are several divisions of "
            "the set, move those that are not meant elsewhere",
        ],
    ),
    "rows": (
        [*FLAT, "c.png"],
        {"labels.csv": "id,label\na,x\ngone,x\nb,\na,x\n"},
        [
            "labels.csv: images are named by column 'id', labels are read from 'label'",
            "labels.csv: ignored 1 row whose image and label another row has, such as 'a'",
            "labels.csv: 1 row without a label, such as that of 'b'",
            ": 1 row without an image, such as 'gone', which is not found",
            ": ignored 1 image that no row names, such as 'c.png'",
        ],
    ),
    "folders": (
        ["train/1.png", "test/1.png"],
        {"labels.csv": "id,label\n1,x\n"},
        [
            "labels.csv: 1 name of images in several folders, of which those in the first are read, such as 'train/1.png'; "
            "a column 'split', or paths in column 'id', would say which",
            "labels.csv: images are named by column 'id', labels are read from 'label'",
            "test: no table names its 1 image, which has no label",
        ],
    ),
}


@pytest.mark.parametrize("case", NOTICES)
def test_what_was_chosen_and_what_is_left_out_is_in_notices(case: str, tmp_path: Path) -> None:
    images, texts, expected = NOTICES[case]
    folder = written(tmp_path / "in", images, **texts)
    found = get_source("image_csv").describe(str(folder), "").notices
    assert [notice.removeprefix(str(folder)).removeprefix("/") for notice in found] == expected


HOT = "image,MEL,NV\n" + "a,1,0\n" * 20  # all of which are one row
BAD: dict[str, tuple[str | bytes, str]] = {
    "two labels": ("id,label\na,x\nb,y\na,z\n", r"csv: row 0: image 'a' has label 'x' here and another in another row"),
    "a path outside": ("id,label\na,x\n../b,y\n", r"row 1: image path '../b' leaves the folder of the table.*\(line 3\)"),
    "an absolute path": ("id,label\na,x\n/etc/b.png,y\n", r"row 1: image path '/etc/b.png' leaves"),
    "no name": ("id,label\na,x\n,y\n", r"row 1: column 'id' is empty; .*\(line 3\)"),
    "too many values": ("id,label\na,x\nb,y,z\n", r"row 1: has 3 values; expected 2, .*\(line 3\)"),
    "too few values": ("id,label\na,x\nb\n", r"row 1: has 1 value; expected 2"),
    "an open quote": ('id,label\na,x\nb,"y\n', r"csv: line 3: is not valid CSV: unexpected end of data"),
    "not UTF-8": (b"id,label\na,x\nb,\xff\n", r"csv: line 3: is not UTF-8: .*save it as UTF-8"),
    "NUL": (b"id,label\na,x\nb,y\0\n", r"row 1: a value has a NUL|line contains NUL"),
    "a long line": ("id,label\na,x\nb," + "y" * 70_000 + "\n", r"csv: line 3: is longer than 65536 bytes"),
    "two classes": (HOT + "b,1,1\n", r"row 1: has a 1 in columns 'MEL', 'NV'; expected one.*\(line 22\)"),
    "no class": (HOT + "b,0,0\n", r"row 1: has no 1 in columns 'MEL', 'NV'; expected one.*\(line 22\)"),
    "a probability": (HOT + "b,0.5,0.5\n", r"row 1: column 'MEL' is '0.5'; expected 0 or 1, as in other rows"),
    "half a row": (HOT + "b,,1\n", r"row 1: column 'MEL' is ''; expected 0 or 1"),
    "no images": ("id,label\nnone,x\n", r"csv: no image that it names is below .*/in; expected their folders there"),
    "only paths outside": ("path,label\n/x/c.png,x\n", r"csv: image path '/x/c.png' leaves the folder of the table"),
    "only a header": ("id,label\n", r"csv: no image that it names"),
    "empty": ("", r"csv: line 1: is empty; expected a header"),
    "UTF-16": ("id,label\na,x\n".encode("utf-16"), r"csv: line 1: is not UTF-8"),
    "no column of images": ("x,label\na,x\n", r"in: has no table with a column of images"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_damaged_table_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    text, reason = BAD[case]
    folder = written(tmp_path / "in", FLAT, **{"labels.csv": text})
    with pytest.raises(InputError, match=reason) as refused:
        quickly(folder, tmp_path / "out", "cifar", save_images=True, input_format="image_csv")
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("images", "table"),
    [
        (["x/a.png", "y/a.png"], "labels.csv"),
        (["x/a.png", "x/a.jpg"], "labels.csv"),
        (["a.png", "a.jpg"], "labels.csv"),
        (["train/x/a.png", "train/y/a.png"], "train.csv"),
    ],
)
def test_a_name_that_may_mean_several_images_is_refused(images: list[str], table: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "in", [*images, "b.png"], **{table: "id,label\na,x\nb,y\n"})
    with pytest.raises(InputError, match=r"row 0: image 'a' may be one of several, such as '.*a\.(png|jpg)'; expected"):
        quickly(folder, tmp_path / "out", "cifar", save_images=True, input_format="image_csv")


def test_of_two_images_with_another_extension_none_is_taken(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", ["a.png", "a.jpg", "b.png"], **{"labels.csv": "id,label\na.bmp,x\nb.bmp,y\n"})
    with pytest.raises(InputError, match=r"row 0: image 'a' may be one of several, such as 'a.(png|jpg)'; expected"):
        quickly(folder, tmp_path / "out", "cifar", save_images=True)


JSON_BAD = {
    "cut": ('{"file_name": "a.png", "lab', "is not valid JSON"),
    "a list": ("[1]", "expected a JSON object"),
    "a label that is a list": ('{"file_name": "b.png", "label": [1]}', r"row 1: 'label' is '\[1\]'; expected text or a number"),
    "a lone surrogate": ('{"file_name": "b.png", "label": "\\ud800"}', "row 1: 'label' is"),
    "deep": ("[" * 60_000, "nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("case", JSON_BAD)
def test_damaged_json_lines_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    text, reason = JSON_BAD[case]
    first = json.dumps({"file_name": "a.png", "label": "x"})
    folder = written(tmp_path / "in", FLAT, **{"metadata.jsonl": f"{first}\n{text}\n"})
    with pytest.raises(InputError, match=reason) as refused:
        quickly(folder, tmp_path / "out", "cifar", input_format="image_csv")
    assert len(str(refused.value).splitlines()) == 1


def test_too_many_bad_rows_classes_or_subsets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("image_csv.MAX_CLASSES", "image_csv.MAX_SUBSETS", "contract.types.MAX_TOLD"):
        monkeypatch.setattr(f"beam_cifar.formats.{name}", 2)
    images = [f"{row}.png" for row in range(4)]
    tables = {
        "id,label\n0,a\n1,b\n2,c\n": "has more than 2 different labels",
        "id,label,split\n0,a,p\n1,a,q\n2,b,r\n": "column 'split' has more than 2 different values",
        "id,label\n0,a\n,b\n,c\n,d\n": r"\(after 2 other bad rows\)",
        "id,label\n0,a\n0,b\n0,a\n": "3 rows have an image that has another label in another row",
    }
    for number, (text, reason) in enumerate(tables.items()):
        folder = written(tmp_path / str(number), images, **{"labels.csv": text})
        with pytest.raises(InputError, match=reason):
            get_source("image_csv").describe(str(folder), "")


@pytest.mark.parametrize(
    ("images", "texts", "expected"),
    [
        (["cat/1.png", "dog/1.png"], {"results.csv": "id,label\n77,x\n"}, "imagenet"),
        (["cat/1.png", "dog/1.png"], {"metadata.csv": "file_name,text\ncat/1.png,x\n"}, "imagenet"),
        (["cat/1.png", "dog/1.png"], {"notes.csv": b"a,b\n\xff,1\n"}, "imagenet"),
        (["train/cat/1.png"], {"notes.csv": "a,b\n1,2\n"}, "imagenet_with_subset_dirs"),
        (["cat/1.png", "dog/1.png"], {"credits.csv": "path,author\ncat/1.png,x\n"}, "imagenet"),
        (["ISIC/1.jpg", "ISIC/2.jpg"], {"truth.csv": "image,MEL,NV\n1,1,0\n2,0,1\n"}, "image_csv"),
        (["1.png"], {"notes.csv": "a,b\n1,2\n"}, "image_dir"),
        (["train/1.png"], {"metadata.csv": "file_name,text\ntrain/1.png,x\n"}, "image_csv"),
        (["train/cat/1.png"], {"metadata.csv": "file_name,text\ntrain/cat/1.png,x\n"}, "imagenet_with_subset_dirs"),
        (["train/cat/1.png"], {"results.csv": "id,label\n77,x\n"}, "imagenet_with_subset_dirs"),
        (["001.png"], {"labels.csv": "id,label\n1,x\n"}, "image_csv"),  # which says that nothing fits
    ],
)
def test_only_a_table_that_names_images_is_one(
    images: list[str], texts: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    assert detect_format(str(written(tmp_path / "in", images, **texts)), str(tmp_path)) == expected


@pytest.mark.parametrize(
    ("images", "texts"),
    [
        (["cat/1.png", "dog/2.png"], {"notes.txt": "1 2\n2 3\n"}),  # numbers, which are names of images too
        (["cat/1.png", "dog/2.png"], {"list_eval_partition.txt": "cat/1.png 0\ndog/2.png 1\n"}),
        (["cat/1.png", "dog/2.png"], {"sizes.txt": "cat/1.png\ndog/2.png\n"}),
        (["cat/1.png", "dog/2.png"], {f"{at}.txt": "cat/1.png 0\n" for at in range(65)}),
        (["test/cat/1.png", "test/dog/2.png"], {"train.csv": "path,label\nx/train/1.png,a\n"}),  # other images
    ],
)
def test_text_that_is_no_list_of_labels_does_not_matter(
    images: list[str], texts: dict[str, Any], tmp_path: Path
) -> None:
    assert str(detect_format(str(written(tmp_path / "in", images, **texts)), str(tmp_path))).startswith("imagenet")


def test_two_tables_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    tables: dict[str, str | bytes] = {"a.csv": "id,label\na,x\nb,y\n", "b.csv": "id,label\na,1\nb,2\n"}
    with pytest.raises(InputError, match=r"b.csv: has other labels than .*a.csv for the same images; move the one"):
        get_source("image_csv").describe(str(written(tmp_path / "in", FLAT, **tables)), "")


def test_one_table_or_one_subset_can_be_named(tmp_path: Path) -> None:
    texts: dict[str, str | bytes] = {"labels.csv": "id,label,split\na,x,train\nb,y,test\n"}
    folder = written(tmp_path / "in", FLAT, **texts)
    for path, subsets, count in ((folder / "labels.csv", (), 2), (folder, (), 2), (folder, ("test",), 1)):
        (found,) = surveys_of([str(path)], None, subsets, str(tmp_path))
        assert sum(summary.rows for summary in found.summaries) == count
    with pytest.raises(UsageError, match="named twice"):
        surveys_of([str(folder), str(folder / "..") + "/in"], None, (), str(tmp_path))


def test_tables_that_change_after_they_were_planned_are_refused(tmp_path: Path) -> None:
    folder, source = written(tmp_path / "in", FLAT, **{"labels.csv": "id,label\na,x\n"}), get_source("image_csv")
    catalog = source.describe(str(folder), str(tmp_path))
    for change in (
        lambda: (folder / "labels.csv").write_text("id,label\nb,x\n\n"),
        lambda: (folder / "b.png").unlink(),
    ):
        change()
        forget()
        with pytest.raises(InputError, match="changed"):
            source.read_rows(catalog.files[0], catalog.labels)
