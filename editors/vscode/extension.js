// Starts `archdsl lsp` and connects the editor to it.
const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

async function start() {
  const command = vscode.workspace.getConfiguration("archdsl").get("command");
  const server = { command, args: ["lsp"] };  // over standard input and output
  client = new LanguageClient("archdsl", "archdsl", server, { documentSelector: [{ language: "archdsl" }] });
  try {
    await client.start();
  } catch (fault) {
    client = undefined;
    vscode.window.showErrorMessage(`\`${command} lsp\` does not start: ${fault.message ?? fault}. pip install 'archdsl[lsp]'`);
  }
}

async function stop() {
  const running = client;
  client = undefined;
  await running?.stop();
}

async function restart() {
  await stop();
  await start();
}

exports.activate = async (context) => {
  context.subscriptions.push(
    vscode.commands.registerCommand("archdsl.restart", restart),
    vscode.workspace.onDidChangeConfiguration((change) => change.affectsConfiguration("archdsl.command") && restart()),
  );
  await start();
};
exports.deactivate = stop;
