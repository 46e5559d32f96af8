/* The report: the table decides which models the charts show. */

const report = readData();
const charts = h("div", { class: "charts", id: "charts" });
const showCharts = (models) => charts.replaceChildren(...renderCharts(report.results, models));
showPage([
  section("results", "Results", renderTable(report.results, showCharts)),
  section("plots", "Charts", h("p", { class: "note" }, "The charts show the models that the table shows."), charts),
  renderAttention(report.attention),
  renderErrors(report.errors),
]);
