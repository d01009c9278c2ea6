// Keeps the table of runs current while the page is visible, with times in the visitor's zone.
const place = document.getElementById("runs");

async function refresh() {
  if (!document.hidden) {
    try {
      const response = await fetch(place.dataset.url);
      if (response.ok) show(await response.text());
    } catch {
      // The server restarts: the next try finds it again.
    }
  }
  setTimeout(refresh, 1000);
}

function show(html) {
  place.innerHTML = html;
  for (const time of place.querySelectorAll("time")) {
    time.textContent = new Date(time.dateTime).toLocaleTimeString();
  }
}

refresh();
