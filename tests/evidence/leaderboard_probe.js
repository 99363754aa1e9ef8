// What tests of the leaderboard ask of its page. The two words in capitals below are replaced by a test's own.
const rows = () => [...document.querySelectorAll(".ranking tbody tr:not(.more)")].filter(found => !found.hidden);
const name = found => found.cells[0].textContent.trim();
const names = () => rows().map(name);
const row = wanted => rows().find(found => name(found) === wanted);
const marked = kind => [...document.querySelectorAll(`.ranking td.score.${kind}`)].map(cell => name(cell.parentElement));
const click = text => [...document.querySelectorAll(".ranking .sort")].find(head => head.textContent.trim().startsWith(text)).click();
const lines = () => [...document.querySelectorAll(".curves .lines path")];
const left = part => part.getBoundingClientRect().left;
const right = part => part.getBoundingClientRect().right;

function choose(filter, value) {
  filters.elements[filter].value = value;
  filters.elements[filter].dispatchEvent(new Event("input", {bubbles: true}));
}

function pick(...columns) {
  for (const box of document.querySelectorAll(".pick input")) box.checked = columns.includes(box.parentElement.textContent.trim());
  document.querySelector(".latex").dispatchEvent(new Event("change"));
}

addEventListener("load", () => {
  let shown;
  try {
    ACTS;
    shown = SHOWS;
  } catch (error) {
    shown = String(error);
  }
  parent.postMessage(JSON.stringify(shown ?? null), "*");
});
