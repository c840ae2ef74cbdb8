import Classify
import Foundation

let paths = CommandLine.arguments.dropFirst()
if paths.isEmpty {
    FileHandle.standardError.write(Data("usage: swift run classify-images IMAGE ...\n".utf8))
    exit(2)
}
let classifier = try await Classifier()
if classifier.model.labels.isEmpty {
    FileHandle.standardError.write(Data("no names of classes in model.json: they are shown by their number\n".utf8))
}
for path in paths {
    print(path)
    for guess in try classifier.best(URL(fileURLWithPath: path)) {
        print(String(format: "  %6.2f %%  %4ld  ", 100 * guess.probability, guess.index) + guess.label)
    }
}
