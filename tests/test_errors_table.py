"""The table of errors made from test reports."""

from tests.errors_table import table

REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_goldens_eval" name="test_float64[{}]"><properties>
<property name="float64 eval 96" value="{}"/><property name="float64 stages" value="2.0e-08"/>
</properties></testcase>
<testcase classname="tests.test_layers" name="test_conv[3-1]"/>
</testsuite></testsuites>"""


def test_table_has_the_largest_error_of_each_family(tmp_path):
    models = ("resnet_34_bn", "resnet_50_bn", "aognet_v2/resnet-101-imagenet-96")
    for model, error in zip(models, ("3.0e-08", "4.1e-08", "1.0e-08"), strict=True):
        (tmp_path / f"{error}.xml").write_text(REPORT.format(model, error))
    rows = table(list(tmp_path.iterdir())).splitlines()
    cells = {row.split(" | ")[0].strip("| "): row.split(" | ")[1:] for row in rows}
    assert cells["family"][2] == "float64 eval, 96 px"
    assert cells["ResNet"][2] == "4.1e-08"
    assert cells["ResNet"][4] == "2.0e-08"
    assert cells["AOGNet-V2"][2] == "1.0e-08"
    assert not any(cells["DenseNet"][:-1])
